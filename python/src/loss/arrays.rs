//! The arrays of a call, checked by the signature of the loss.

use std::ops::Range;

use fastoptim::loss::signature::{InputShape, MAX_WEIGHTS, Role, Signature, WeightShape};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::memory::numpy::{Array, Dtype, floats};

/// The arrays of a call.
pub(super) struct Arrays<'py> {
    /// At least one; all have its type and shape.
    pub(super) inputs: Vec<Array<'py>>,
    pub(super) target: Option<Array<'py>>,
    pub(super) weights: [Option<Array<'py>>; MAX_WEIGHTS],
    /// The names and the memory of the arrays that are only read.
    pub(super) read: Vec<(&'static str, Range<usize>)>,
}

impl<'py> Arrays<'py> {
    /// Checks the positional arguments of a call, and its weights.
    pub(super) fn new(
        signature: &'static Signature,
        given: &Bound<'py, PyTuple>,
        weights: &[Option<Bound<'py, PyAny>>; MAX_WEIGHTS],
    ) -> PyResult<Self> {
        let expected = signature.arrays;
        if given.len() != expected.len() {
            let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
            let (names, found) = (names.join(", "), given.len());
            return Err(PyTypeError::new_err(format!(
                "expected {names}, got {found} arguments"
            )));
        }
        let mut inputs: Vec<Array<'py>> = Vec::with_capacity(expected.len());
        let (mut target, mut read) = (None, Vec::with_capacity(1 + MAX_WEIGHTS));
        for (&(name, role), object) in expected.iter().zip(given.iter_borrowed()) {
            match (role, inputs.first()) {
                (Role::Input, None) => inputs.push(first_input(name, &object, signature.shape)?),
                (Role::Input, Some(first)) => {
                    let array = floats(name, &object)?;
                    require_dtype(name, &array, first)?;
                    require_shape(name, &array, &first.shape)?;
                    inputs.push(array);
                }
                (_, first) => {
                    let first = first.expect("the first array of a signature is an input");
                    let array = Array::new(name, &object)?;
                    check_target(name, role, &array, first)?;
                    read.push((name, array.range()));
                    target = Some(array);
                }
            }
        }
        let mut arrays = [const { None }; MAX_WEIGHTS];
        let named = signature.weights.iter().zip(weights);
        for (array, (&(name, shape), object)) in arrays.iter_mut().zip(named) {
            if let Some(object) = object {
                let weight = weight(name, shape, object, &inputs[0])?;
                read.push((name, weight.range()));
                *array = Some(weight);
            }
        }
        Ok(Self {
            inputs,
            target,
            weights: arrays,
            read,
        })
    }
}

fn first_input<'py>(
    name: &str,
    object: &Bound<'py, PyAny>,
    shape: InputShape,
) -> PyResult<Array<'py>> {
    let array = floats(name, object)?;
    let expected = match shape {
        InputShape::Any => return Ok(array),
        InputShape::Scores => "(N, C)",
        InputShape::Vectors => "(N, D)",
    };
    if array.shape.len() == 2 {
        return Ok(array);
    }
    Err(PyValueError::new_err(format!(
        "{name} must have shape {expected}, got {:?}",
        array.shape
    )))
}

fn check_target(name: &str, role: Role, target: &Array<'_>, input: &Array<'_>) -> PyResult<()> {
    let is_integer = matches!(target.dtype, Dtype::I32 | Dtype::I64);
    let per_row = match role {
        Role::Input | Role::ElementTarget => false,
        Role::RowTarget => true,
        Role::ClassOrProbabilityTarget => is_integer,
        Role::ClassTarget if is_integer => true,
        Role::ClassTarget => {
            return Err(PyTypeError::new_err(format!(
                "{name} must be class indices, int32 or int64, got {}",
                target.dtype
            )));
        }
    };
    if !(per_row && is_integer) {
        require_dtype(name, target, input)?;
    }
    let shape = if per_row {
        &input.shape[..1]
    } else {
        &input.shape
    };
    require_shape(name, target, shape)
}

fn weight<'py>(
    name: &str,
    shape: WeightShape,
    object: &Bound<'py, PyAny>,
    input: &Array<'py>,
) -> PyResult<Array<'py>> {
    let array = Array::new(name, object)?;
    require_dtype(name, &array, input)?;
    let last_axis = input.shape.last_chunk::<1>();
    let expected = match (shape, last_axis) {
        (WeightShape::Classes, Some(axis)) => axis,
        (WeightShape::ElementsOrLastAxis, Some(axis)) if array.shape == axis => axis,
        _ => &*input.shape,
    };
    require_shape(name, &array, expected)?;
    Ok(array)
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
