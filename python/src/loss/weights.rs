//! The weights of a call: arrays, or lists and tuples of numbers.

use fastoptim::loss::signature::WeightShape;
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyList, PyTuple};

use super::arrays::{goes_with, types_beside};
use crate::memory::foreign::ForeignArray;
use crate::memory::numpy::Array;

/// A weight as the caller gives it.
pub(super) struct Given<'py> {
    object: Bound<'py, PyAny>,
    /// Whether it was a list or a tuple, which is now an array of float64.
    is_listed: bool,
}

/// A weight beside an input.
pub(super) struct Weight<'py> {
    pub(super) array: Array<'py>,
    /// The axes of the input, with the distances of their indices in the array; `None` for a
    /// weight per class.
    pub(super) axes: Option<Vec<[usize; 2]>>,
    /// Whether the kernels know the shape.
    pub(super) is_native: bool,
}

pub(super) fn is_array(object: &Bound<'_, PyAny>) -> bool {
    !object.is_exact_instance_of::<PyFloat>()
        && (object.is_instance_of::<PyUntypedArray>() || object.is_instance_of::<ForeignArray>())
}

/// Whether it is a list or a tuple.
pub(super) fn is_list(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyTuple>() || object.is_instance_of::<PyList>()
}

impl<'py> Given<'py> {
    /// Converts lists, whose items may run any code, before an array of the call is looked at.
    pub(super) fn new(name: &str, object: Bound<'py, PyAny>) -> PyResult<Self> {
        let is_listed = is_list(&object);
        let object = if is_listed {
            listed(name, &object)?
        } else {
            object
        };
        Ok(Self { object, is_listed })
    }

    /// It as an attribute of a loss: an array as it is, and a tuple for a list.
    pub(super) fn plain(&self, name: &str, shape: WeightShape) -> PyResult<Bound<'py, PyAny>> {
        let Ok(array) = self.object.cast::<PyUntypedArray>() else {
            let kind = self.object.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "{name} must be a numpy.ndarray or a list of numbers, got {kind}"
            )));
        };
        if shape == WeightShape::Classes && array.ndim() != 1 {
            let found = array.getattr("shape")?;
            return Err(PyValueError::new_err(format!(
                "{name} must have shape (C,), got {found}"
            )));
        }
        if self.is_listed {
            let numbers = array.call_method0("tolist")?;
            return Ok(PyTuple::new(array.py(), numbers.cast::<PyList>()?)?.into_any());
        }
        Ok(self.object.clone())
    }
}

/// The numbers of a list or a tuple.
fn listed<'py>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let refuse = || PyTypeError::new_err(format!("{name} must be an array, or a list of numbers"));
    let found = AS_ARRAY.import(py, "numpy", "asarray")?.call1((object,));
    let array = found.map_err(|error| {
        if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py) {
            refuse()
        } else {
            error
        }
    })?;
    let array = array.cast_into::<PyUntypedArray>().map_err(|_| refuse())?;
    if matches!(array.dtype().kind(), b'f' | b'i' | b'u') {
        array.call_method1("astype", ("float64",))
    } else {
        Err(refuse())
    }
}

/// Checks a weight beside an input with rows of `classes` elements.
pub(super) fn of<'py>(
    name: &str,
    shape: WeightShape,
    given: &Given<'py>,
    input: &Array<'py>,
    classes: usize,
) -> PyResult<Weight<'py>> {
    let array = if given.is_listed {
        let dtype = input.dtype.arithmetic().to_string();
        Array::new(name, &given.object.call_method1("astype", (dtype,))?)?
    } else {
        Array::new(name, &given.object)?
    };
    if !goes_with(array.dtype, input.dtype) {
        return Err(PyTypeError::new_err(format!(
            "{name} must be {}, got {}: {name}.astype(input.dtype) converts it",
            types_beside(input.dtype),
            array.dtype
        )));
    }
    if shape == WeightShape::Classes {
        if array.shape == [classes] {
            return Ok(Weight {
                array,
                axes: None,
                is_native: true,
            });
        }
        return Err(PyValueError::new_err(format!(
            "{name} must have a number for each of the {classes} classes, got shape {:?}",
            array.shape
        )));
    }
    let Some(axes) = broadcast(&array.shape, &input.shape) else {
        return Err(PyValueError::new_err(format!(
            "{name} must have a shape that broadcasts to that of the input, {:?}, got {:?}",
            input.shape, array.shape
        )));
    };
    let last = input.shape.last_chunk::<1>();
    let is_axis =
        shape == WeightShape::ElementsOrLastAxis && last.is_some_and(|last| array.shape == last);
    Ok(Weight {
        is_native: is_axis || array.shape == input.shape,
        axes: Some(axes),
        array,
    })
}

/// The axes of a shape, with the distances of their indices in an array that is broadcast to it.
/// Neighbours that are one axis in memory are joined.
fn broadcast(shape: &[usize], to: &[usize]) -> Option<Vec<[usize; 2]>> {
    let missing = to.len().checked_sub(shape.len())?;
    let mut axes: Vec<[usize; 2]> = Vec::with_capacity(to.len());
    let mut next = 1;
    for (index, &length) in to.iter().enumerate().rev() {
        let own = index.checked_sub(missing).map_or(1, |own| shape[own]);
        if own != length && own != 1 {
            return None;
        }
        let stride = if own == 1 { 0 } else { next };
        next *= own;
        match axes.last_mut() {
            _ if length == 1 => {}
            Some([inner, step]) if stride == *step * *inner => *inner *= length,
            _ => axes.push([length, stride]),
        }
    }
    axes.reverse();
    Some(axes)
}
