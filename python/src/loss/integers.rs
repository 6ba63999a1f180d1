//! Integers that are used as addresses: class indices and labels.
//!
//! Other threads may write an array while a loss reads it, because NumPy arrays have no locks. With
//! numbers the result is then that of some mixture of old and new ones. Integers become addresses,
//! so a call copies them once, and checks and uses the copy.

use pyo3::exceptions::{PyIndexError, PyOverflowError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyInt, PyType};

use crate::arguments::wrong_type;
use crate::memory::numpy::{Array, Dtype};

/// Copies the integers of an array as `i64`, or returns `None` if its elements are not integers.
///
/// # Errors
/// `IndexError` if one does not fit `i64`.
pub(super) fn of(name: &str, array: &Array<'_>) -> PyResult<Option<Vec<i64>>> {
    // SAFETY: the type of the elements is the integer type of each dtype.
    let wide = unsafe {
        match array.dtype {
            Dtype::I8 => widened::<i8>(array),
            Dtype::U8 => widened::<u8>(array),
            Dtype::I16 => widened::<i16>(array),
            Dtype::U16 => widened::<u16>(array),
            Dtype::I32 => widened::<i32>(array),
            Dtype::U32 => widened::<u32>(array),
            Dtype::I64 => copied(array),
            Dtype::U64 => {
                let fits = |(index, x): (usize, u64)| {
                    i64::try_from(x).map_err(|_| {
                        let place = if array.shape.is_empty() {
                            String::new()
                        } else {
                            format!("[{index}]")
                        };
                        PyIndexError::new_err(format!("{name}{place} is {x}, beyond int64"))
                    })
                };
                let given = copied::<u64>(array).into_iter().enumerate();
                given.map(fits).collect::<PyResult<_>>()?
            }
            _ => return Ok(None),
        }
    };
    Ok(Some(wide))
}

/// The one integer that a Python or NumPy integer is, or `None` for everything else.
///
/// # Errors
/// `IndexError` if it does not fit `i64`.
pub(super) fn scalar(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<i64>>> {
    static INTEGER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let is_python = object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>();
    if !is_python {
        let known = INTEGER.import(object.py(), "numpy", "integer")?;
        if !object.is_instance(known)? {
            return Ok(None);
        }
    }
    let integer = object.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            PyIndexError::new_err(format!("{name} is {object}, beyond int64"))
        } else {
            wrong_type(name, "an integer", object)
        }
    })?;
    Ok(Some(vec![integer]))
}

/// The labels of an array, which are only compared with each other, or `None` if its elements are
/// not integers.
pub(super) fn labels(array: &Array<'_>) -> PyResult<Option<Vec<i64>>> {
    if array.dtype == Dtype::U64 {
        // SAFETY: the elements are `u64`.
        let labels: Vec<u64> = unsafe { copied(array) };
        return Ok(Some(labels.into_iter().map(u64::cast_signed).collect()));
    }
    of("labels", array)
}

/// [`copied`], as `i64`.
///
/// # Safety
/// As for `copied`.
unsafe fn widened<I: Copy + Into<i64>>(array: &Array<'_>) -> Vec<i64> {
    let data = array.data.cast_const().cast::<I>();
    // SAFETY: as in `copied`.
    let read = |index| unsafe { data.add(index).read() };
    (0..array.len).map(|index| read(index).into()).collect()
}

/// The elements of an array, each read once: the elements that are checked are those that are used,
/// even if another thread writes the array afterwards.
///
/// # Safety
/// `I` is an integer type, and that of the elements.
unsafe fn copied<I: Copy>(array: &Array<'_>) -> Vec<I> {
    let mut copy = Vec::with_capacity(array.len);
    let data = array.data.cast_const().cast::<I>();
    // SAFETY: `array` holds its object, so `len` elements of this type can be read; the new memory
    // has room for them, and every bit pattern is an integer. The bytes are copied from a pointer
    // and not from a slice, which would assert that no other thread writes them.
    unsafe {
        data.copy_to_nonoverlapping(copy.as_mut_ptr(), array.len);
        copy.set_len(array.len);
    }
    copy
}
