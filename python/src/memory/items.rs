//! Sequences received from Python. All functions of the module extract sequences with this type.

use std::ops::Deref;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

/// The maximum capacity allocated in advance, since `len()` of an object may be wrong.
const CAPACITY: usize = 4096;

/// The items of a sequence. It holds references to items that are objects, so they stay alive until
/// the end of a call even if the sequence changes.
pub(crate) struct Items<T>(Vec<T>);

impl<T> Deref for Items<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> From<Items<T>> for Vec<T> {
    fn from(items: Items<T>) -> Self {
        items.0
    }
}

impl<T> IntoIterator for Items<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'py, T: FromPyObjectOwned<'py>> FromPyObject<'_, 'py> for Items<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("must be a sequence, got a string"));
        }
        // SAFETY: the pointer is that of an object, and the interpreter is attached.
        if unsafe { ffi::PySequence_Check(object.as_ptr()) } == 0 {
            return Err(PyTypeError::new_err(format!(
                "must be a sequence, got {}",
                object.get_type().name()?
            )));
        }
        let stated = object.len()?;
        let kind = || object.get_type().name();
        let mut items = Vec::with_capacity(stated.min(CAPACITY));
        let mut add = |item: Bound<'py, PyAny>| {
            if items.len() == stated {
                return Err(PyValueError::new_err(format!(
                    "the {} has more items than its length of {stated}",
                    kind()?
                )));
            }
            items.push(item.extract().map_err(Into::into)?);
            Ok(())
        };
        // Most calls are given lists; the iterator of any sequence takes twice the time.
        if let Ok(list) = object.cast_exact::<PyList>() {
            let mut index = 0;
            // Its length may change, as an item may run Python code.
            while index < list.len() {
                add(list.get_item(index)?)?;
                index += 1;
            }
        } else {
            for item in object.try_iter()? {
                add(item?)?;
            }
        }
        if items.len() < stated {
            return Err(PyValueError::new_err(format!(
                "the {} has {} items and a length of {stated}",
                kind()?,
                items.len()
            )));
        }
        Ok(Self(items))
    }
}
