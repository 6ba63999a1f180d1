//! Conversion of errors of the core to Python exceptions, one class per variant.

use fastoptim::error::Error;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyFloatingPointError, PyIndexError, PyRuntimeError, PyTypeError, PyValueError,
};

pub(crate) fn to_py(error: Error) -> PyErr {
    match error {
        Error::Value(message) => PyValueError::new_err(message),
        Error::Type(message) => PyTypeError::new_err(message),
        Error::Index(message) => PyIndexError::new_err(message),
        Error::Changed(message) => PyRuntimeError::new_err(message),
        Error::NotFinite(_) => PyFloatingPointError::new_err(error.to_string()),
    }
}
