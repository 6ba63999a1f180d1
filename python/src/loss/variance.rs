//! An input that may be one number for several elements: the variance of a normal distribution.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyType};

use super::arrays::{goes_with, types_beside};
use crate::arguments::wrong_type;
use crate::memory::numpy::{Array, numbers};

/// The array, and the number of elements of the input that share an element of it.
pub(super) fn of<'py>(
    name: &str,
    object: &Bound<'py, PyAny>,
    input: &Array<'py>,
) -> PyResult<(Array<'py>, usize)> {
    let array = match number(name, object)? {
        Some(x) => {
            static ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let py = object.py();
            let make = ARRAY.import(py, "numpy", "array")?;
            let dtype = input.dtype.arithmetic().to_string();
            Array::new(name, &make.call1((x, dtype))?)?
        }
        None => numbers(name, object)?,
    };
    if !goes_with(array.dtype, input.dtype) {
        return Err(PyTypeError::new_err(format!(
            "{name} must be {}, got {}",
            types_beside(input.dtype),
            array.dtype
        )));
    }
    let shape = &*array.shape;
    if shape == input.shape {
        return Ok((array, 1));
    }
    if shape.is_empty() {
        return Ok((array, input.len));
    }
    if let Some((&last, outer)) = input.shape.split_last() {
        let kept = shape.split_last().filter(|(n, _)| **n == 1);
        if shape == outer || kept.is_some_and(|(_, rest)| rest == outer) {
            return Ok((array, last));
        }
    }
    Err(PyValueError::new_err(format!(
        "{name} must have shape {:?}, that without its last axis or with a last axis of 1, or be one \
         number, got {shape:?}",
        input.shape
    )))
}

/// The value of a Python or NumPy number.
fn number(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    static FLOATING: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static INTEGER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    let is_number = object.is_instance_of::<PyFloat>()
        || (object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>())
        || object.is_instance(FLOATING.import(py, "numpy", "floating")?)?
        || object.is_instance(INTEGER.import(py, "numpy", "integer")?)?;
    if !is_number {
        return Ok(None);
    }
    let x = object.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(py) {
            PyValueError::new_err(format!("{name} is too large"))
        } else {
            wrong_type(name, "a number or an array", object)
        }
    })?;
    Ok(Some(x))
}
