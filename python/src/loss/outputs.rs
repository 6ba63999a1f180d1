//! The arrays that a call writes: gradients and unreduced values.

use std::ops::Range;

use fastoptim::loss::{Input, Reduction};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyTuple};

use super::arguments::Reduce;
use super::arrays::{Arrays, require_dtype, require_shape};
use crate::memory::inflight;
use crate::memory::numpy::{Array, Dtype, check_disjoint};

/// The value and, if it is requested, the gradient or a tuple of gradients.
pub(super) type ValueAndGradient<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

/// The arrays that a call writes: a gradient per input (a single one may be its input) and the
/// values that are not reduced.
pub(super) struct Outputs<'py> {
    gradients: Option<Vec<Array<'py>>>,
    values: Option<Array<'py>>,
    _guard: inflight::Guard,
}

impl<'py> Outputs<'py> {
    /// Checks `Some(out)` against all arrays that are read, or allocates the gradients if `out` is
    /// `None`, and registers all memory of the call. The unreduced values have a shape, and are
    /// written to the array that is given for them, if one is.
    pub(super) fn new(
        py: Python<'py>,
        arrays: &Arrays<'py>,
        out: Option<Option<&Bound<'py, PyAny>>>,
        (shape, values): (Option<&[usize]>, Option<&Bound<'py, PyAny>>),
    ) -> PyResult<Self> {
        let (inputs, read) = (&arrays.inputs, &arrays.read);
        let gradients = match out {
            None => None,
            Some(None) => {
                let empty = |input: &Array<'py>| empty(py, &input.shape, input.dtype);
                Some(inputs.iter().map(empty).collect::<PyResult<_>>()?)
            }
            Some(Some(out)) => Some(given_gradients(inputs, read, out)?),
        };
        let values = match (shape, values) {
            (None, _) => None,
            (Some(shape), None) => Some(empty(py, shape, inputs[0].dtype)?),
            (Some(shape), Some(given)) => {
                let taken = inputs.iter().chain(gradients.iter().flatten());
                let taken = taken.map(|array| ("the inputs and gradients", array.range()));
                let taken: Vec<_> = taken.chain(read.iter().cloned()).collect();
                Some(given_values(given, &inputs[0], shape, &taken)?)
            }
        };
        let gradients_and_values = gradients.iter().flatten().chain(&values);
        let written = gradients_and_values.map(Array::range).collect();
        let read = read.iter().map(|(_, range)| range.clone());
        let read = read.chain(inputs.iter().map(Array::range)).collect();
        let guard = inflight::enter(written, read)?;
        Ok(Self {
            gradients,
            values,
            _guard: guard,
        })
    }

    /// The gradient by an input, if it is requested.
    pub(super) fn gradient(&self, index: usize) -> Option<&Array<'py>> {
        self.gradients.as_ref().map(|gradients| &gradients[index])
    }

    /// The values, if they are not reduced.
    pub(super) fn values(&self) -> Option<&Array<'py>> {
        self.values.as_ref()
    }

    /// The inputs with the memory of their gradients.
    ///
    /// # Safety
    /// `inputs` are those of `new`, `T` is their type, and they and `self` outlive the result.
    pub(super) unsafe fn inputs<'a, T>(&self, inputs: &[Array<'_>]) -> Vec<Input<'a, T>> {
        // SAFETY: by this function's contract the arrays have elements of `T` and outlive the
        // result. `new` registered the memory, so that no other call uses it, and checked
        // that each gradient is disjoint from everything that is read, or is its own input,
        // which is then only used through the gradient.
        let input = |(index, input): (usize, &Array<'_>)| unsafe {
            match self.gradient(index) {
                None => Input::Value(input.slice()),
                Some(out) if out.data == input.data => Input::InPlace(out.slice_mut()),
                Some(out) => Input::Gradient(input.slice(), out.slice_mut()),
            }
        };
        inputs.iter().enumerate().map(input).collect()
    }

    /// The reduction, with the memory of values that are not reduced.
    ///
    /// # Safety
    /// `T` is the type of the inputs, `self` outlives the result, and there is one result at a
    /// time.
    pub(super) unsafe fn reduction<'a, T>(&self, reduce: Reduce, rows: usize) -> Reduction<'a, T> {
        match (reduce, &self.values) {
            // SAFETY: `new` allocated the values, or checked that they have the type of the inputs
            // and share no memory with other arrays of the call, and registered them.
            // By this function's contract the result is the only slice of them.
            (_, Some(values)) => Reduction::None(unsafe { values.slice_mut() }),
            (Reduce::Mean, _) => Reduction::Mean,
            (Reduce::BatchMean, _) => Reduction::BatchMean(rows),
            (Reduce::Sum | Reduce::None, _) => Reduction::Sum,
        }
    }

    pub(super) fn into_python(
        self,
        py: Python<'py>,
        value: f64,
    ) -> PyResult<ValueAndGradient<'py>> {
        let value = match self.values {
            Some(values) => values.object.into_any(),
            None => PyFloat::new(py, value).into_any(),
        };
        let Some(gradients) = self.gradients else {
            return Ok((value, None));
        };
        let mut gradients = gradients.into_iter().map(|array| array.object.into_any());
        let gradient = match gradients.len() {
            1 => gradients.next(),
            _ => Some(PyTuple::new(py, gradients)?.into_any()),
        };
        Ok((value, gradient))
    }
}

/// Calls `numpy.empty`. Nothing else refers to the memory of the result.
fn empty<'py>(py: Python<'py>, shape: &[usize], dtype: Dtype) -> PyResult<Array<'py>> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let shape = PyTuple::new(py, shape)?;
    let object = EMPTY
        .import(py, "numpy", "empty")?
        .call1((shape, dtype.descr(py)?))?;
    Array::new("out", &object)
}

/// The array that the caller gives for unreduced values.
fn given_values<'py>(
    object: &Bound<'py, PyAny>,
    input: &Array<'py>,
    shape: &[usize],
    taken: &[(&str, Range<usize>)],
) -> PyResult<Array<'py>> {
    let values = Array::new("values", object)?;
    require_dtype("values", &values, input)?;
    require_shape("values", &values, shape)?;
    values.require_writable("values")?;
    check_disjoint(&[("values", values.range())], taken)?;
    Ok(values)
}

/// The gradients that the caller gives as `out`: an array for a single input, which may be that
/// input, or a tuple of arrays that share no memory with each other or with any argument.
fn given_gradients<'py>(
    inputs: &[Array<'py>],
    read: &[(&str, Range<usize>)],
    out: &Bound<'py, PyAny>,
) -> PyResult<Vec<Array<'py>>> {
    let count = inputs.len();
    let given: Vec<Bound<'py, PyAny>> = match out.cast::<PyTuple>() {
        _ if count == 1 => vec![out.clone()],
        Ok(tuple) if tuple.len() == count => tuple.iter().collect(),
        Ok(tuple) => {
            return Err(PyValueError::new_err(format!(
                "out must have {count} arrays, got {}",
                tuple.len()
            )));
        }
        Err(_) => {
            return Err(PyTypeError::new_err(format!(
                "out must be a tuple of {count} arrays, got {}",
                out.get_type().name()?
            )));
        }
    };
    let mut gradients = Vec::with_capacity(count);
    for (out, input) in given.iter().zip(inputs) {
        let out = Array::new("out", out)?;
        require_dtype("out", &out, input)?;
        require_shape("out", &out, &input.shape)?;
        out.require_writable("out")?;
        gradients.push(out);
    }
    let written: Vec<_> = gradients.iter().map(|out| ("out", out.range())).collect();
    check_disjoint(&written, read)?;
    if count > 1 || gradients[0].range() != inputs[0].range() {
        let inputs: Vec<_> = inputs.iter().map(|x| ("the input", x.range())).collect();
        check_disjoint(&written, &inputs)?;
    }
    Ok(gradients)
}
