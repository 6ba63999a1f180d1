//! The arrays of a call, checked by the signature of the loss.

use std::ops::Range;

use fastoptim::loss::signature::{InputShape, MAX_WEIGHTS, Role, Signature};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::targets::{self, Target};
use super::variance;
use super::weights::{self, Given, Weight};
use crate::memory::numpy::{Array, Dtype, numbers};

/// The rows of the first input.
pub(super) struct Rows {
    /// The number of rows and their length, which is 1 for an elementwise loss.
    pub(super) shape: [usize; 2],
    /// The rows of a sample that are interleaved: 1, or the number of positions behind the
    /// classes.
    pub(super) positions: usize,
    /// The shape of what has one element per row.
    pub(super) outer: Vec<usize>,
}

impl Rows {
    fn of(name: &str, kind: InputShape, shape: &[usize]) -> PyResult<Self> {
        let expected = match (kind, shape) {
            (InputShape::Any, _) => {
                return Ok(Self {
                    shape: [shape.iter().product(), 1],
                    positions: 1,
                    outer: shape.to_vec(),
                });
            }
            (_, &[length]) => {
                return Ok(Self {
                    shape: [1, length],
                    positions: 1,
                    outer: Vec::new(),
                });
            }
            (InputShape::Scores, &[samples, length, ref rest @ ..]) => {
                let mut rows = Some(samples);
                for &n in rest {
                    rows = rows.and_then(|rows| rows.checked_mul(n));
                }
                let rows = rows.ok_or_else(|| {
                    PyValueError::new_err(format!("{name} of shape {shape:?} has too many rows"))
                })?;
                let mut outer = vec![samples];
                outer.extend(rest);
                return Ok(Self {
                    shape: [rows, length],
                    positions: rest.iter().product(),
                    outer,
                });
            }
            (InputShape::Vectors, &[rows, length]) => {
                return Ok(Self {
                    shape: [rows, length],
                    positions: 1,
                    outer: vec![rows],
                });
            }
            (InputShape::Scores, _) => "(N, C), (C,) or (N, C, d1, ...)",
            (InputShape::Vectors, _) => "(N, D) or (D,)",
        };
        Err(PyValueError::new_err(format!(
            "{name} must have shape {expected}, got {shape:?}"
        )))
    }
}

/// The arrays of a call.
pub(super) struct Arrays<'py> {
    /// At least one; all have its type and shape, except for one that is repeated.
    pub(super) inputs: Vec<Array<'py>>,
    /// The number of elements that share a number of an input: 1 unless it is repeated.
    pub(super) repeats: Vec<usize>,
    pub(super) target: Option<Target<'py>>,
    pub(super) weights: [Option<Weight<'py>>; MAX_WEIGHTS],
    pub(super) rows: Rows,
    /// The names and the memory of the arrays that are only read.
    pub(super) read: Vec<(&'static str, Range<usize>)>,
}

impl<'py> Arrays<'py> {
    /// Checks the positional arguments of a call, and its weights.
    pub(super) fn new(
        signature: &'static Signature,
        given: &Bound<'py, PyTuple>,
        weights: &[Option<Given<'py>>; MAX_WEIGHTS],
    ) -> PyResult<Self> {
        let expected = signature.arrays;
        if given.len() != expected.len() {
            let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
            let (names, found) = (names.join(", "), given.len());
            return Err(PyTypeError::new_err(format!(
                "expected {names}, got {found} arguments"
            )));
        }
        let first = numbers(expected[0].0, &given.get_item(0)?)?;
        let rows = Rows::of(expected[0].0, signature.shape, &first.shape)?;
        let (mut inputs, mut repeats) = (vec![first], vec![1]);
        let (mut target, mut read) = (None, Vec::with_capacity(1 + MAX_WEIGHTS));
        for (&(name, role), object) in expected.iter().zip(given.iter_borrowed()).skip(1) {
            let first = &inputs[0];
            match role {
                Role::Input => {
                    let array = numbers(name, &object)?;
                    require_dtype(name, &array, first)?;
                    require_shape(name, &array, &first.shape)?;
                    inputs.push(array);
                    repeats.push(1);
                }
                Role::RepeatedInput => {
                    let (array, each) = variance::of(name, &object, first)?;
                    inputs.push(array);
                    repeats.push(each);
                }
                _ => {
                    let found = targets::of(name, role, &object, first, &rows)?;
                    read.extend(found.range().map(|range| (name, range)));
                    target = Some(found);
                }
            }
        }
        let mut arrays = [const { None }; MAX_WEIGHTS];
        let named = signature.weights.iter().zip(weights);
        for (array, (&(name, shape), given)) in arrays.iter_mut().zip(named) {
            if let Some(given) = given {
                let weight = weights::of(name, shape, given, &inputs[0], rows.shape[1])?;
                read.push((name, weight.array.range()));
                *array = Some(weight);
            }
        }
        Ok(Self {
            inputs,
            repeats,
            target,
            weights: arrays,
            rows,
            read,
        })
    }

    /// Whether the kernels can read them as they are.
    pub(super) fn are_native(&self) -> bool {
        let dtype = self.inputs[0].dtype;
        let same = |array: &Array<'_>| array.dtype == dtype;
        matches!(dtype, Dtype::F32 | Dtype::F64)
            && self.rows.positions == 1
            && self.repeats.iter().all(|&n| n == 1)
            && self.inputs.iter().all(same)
            && self
                .target
                .as_ref()
                .and_then(Target::numbers)
                .is_none_or(same)
            && self
                .weights
                .iter()
                .flatten()
                .all(|w| w.is_native && same(&w.array))
    }
}

/// Whether targets and weights beside this input may have a type: its own or that of the
/// arithmetic.
pub(super) fn goes_with(dtype: Dtype, input: Dtype) -> bool {
    dtype == input || dtype == input.arithmetic()
}

/// The types that [`goes_with`] allows, for messages.
pub(super) fn types_beside(input: Dtype) -> String {
    if input.is_half() {
        format!("{input} as the input is, or float32")
    } else {
        format!("{input} as the input is")
    }
}

pub(super) fn require_dtype(name: &str, array: &Array<'_>, input: &Array<'_>) -> PyResult<()> {
    if array.dtype == input.dtype {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "{name} must be {} as the input is, got {}",
        input.dtype, array.dtype
    )))
}

pub(super) fn require_shape(name: &str, array: &Array<'_>, shape: &[usize]) -> PyResult<()> {
    if array.shape == shape {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} must have shape {shape:?}, got {:?}: nothing is broadcast",
        array.shape
    )))
}
