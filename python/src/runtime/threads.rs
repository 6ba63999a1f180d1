//! The number of threads.

use std::ffi::OsString;

use fastoptim::exec::pool;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

fn checked(n: &Bound<'_, PyAny>) -> PyResult<usize> {
    let index = n.call_method0("__index__");
    let (Ok(index), false) = (index, n.is_instance_of::<PyBool>()) else {
        return Err(PyTypeError::new_err(format!(
            "n must be an int, got {}",
            n.repr()?
        )));
    };
    match index.extract::<usize>() {
        Ok(count) if (1..=pool::MOST).contains(&count) => Ok(count),
        _ => Err(PyValueError::new_err(format!(
            "n must be between 1 and {}, got {n}",
            pool::MOST
        ))),
    }
}

/// Sets the number of threads of the process.
#[pyfunction]
fn set_num_threads(n: &Bound<'_, PyAny>) -> PyResult<()> {
    pool::set_count(checked(n)?);
    Ok(())
}

/// The number of threads that calls of this thread use.
#[pyfunction]
fn get_num_threads() -> usize {
    pool::count()
}

/// Sets the number for the calling thread alone and returns the one before; `None` is the process's.
#[pyfunction]
fn set_own_threads(n: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let before = pool::set_own_count(n.map_or(Ok(0), checked)?);
    Ok((before != 0).then_some(before))
}

/// Whether `text` is a number of threads as the environment variable takes it. It may hold what is
/// not Unicode, as anything in the environment may.
#[pyfunction]
fn is_thread_count(text: OsString) -> bool {
    text.to_str().and_then(pool::parse).is_some()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(set_own_threads, module)?)?;
    module.add_function(wrap_pyfunction!(is_thread_count, module)?)
}
