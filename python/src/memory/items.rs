//! The one way in which sequences come in from Python.

use std::ops::Deref;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// What is allocated before the items are seen: a length is only what an object says of itself.
const CAPACITY: usize = 4096;

/// The items of a sequence. Objects among them are held, whatever becomes of the sequence, until
/// this is dropped: a call keeps it to its end.
pub(crate) struct Items<T>(Vec<T>);

impl<T> Deref for Items<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
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
            return Err(PyTypeError::new_err("a string is no sequence of items"));
        }
        // SAFETY: an object, and the interpreter is attached.
        if unsafe { ffi::PySequence_Check(object.as_ptr()) } == 0 {
            return Err(PyTypeError::new_err(format!(
                "must be a sequence, got {}",
                object.get_type().name()?
            )));
        }
        let said = object.len()?;
        let kind = || object.get_type().name();
        let mut items = Vec::with_capacity(said.min(CAPACITY));
        for item in object.try_iter()? {
            if items.len() == said {
                return Err(PyValueError::new_err(format!(
                    "the {} has more items than its length of {said}",
                    kind()?
                )));
            }
            items.push(item?.extract().map_err(Into::into)?);
        }
        if items.len() < said {
            return Err(PyValueError::new_err(format!(
                "the {} has {} items and a length of {said}",
                kind()?,
                items.len()
            )));
        }
        Ok(Self(items))
    }
}
