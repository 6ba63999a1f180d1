//! Threads: their number, those of other libraries, and what kernels need in them.

use std::ffi::{CString, OsString};

use fastoptim::exec::{environment, openmp, pool};
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

/// Sets the number of threads of the process, unless the user has. Returns whether it did.
#[pyfunction]
fn suggest_num_threads(n: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(pool::suggest_count(checked(n)?))
}

/// Returns the number of threads used by calls of this thread.
#[pyfunction]
fn get_num_threads() -> usize {
    pool::count()
}

/// Sets the number of threads for calls of this thread only, and returns the previous value. `None`
/// means the number of the process.
#[pyfunction]
fn set_own_threads(n: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let before = pool::set_own_count(n.map_or(Ok(0), checked)?);
    Ok((before != 0).then_some(before))
}

/// Returns whether `text` is a valid value of the environment variable. It may not be valid
/// Unicode.
#[pyfunction]
fn is_thread_count(text: OsString) -> bool {
    text.to_str().and_then(pool::parse).is_some()
}

/// Uses the threads of the OpenMP library on which a loaded library depends, while they wait awake.
/// Returns whether the calling thread does, or does so with another library already.
#[pyfunction]
fn use_openmp(library: CString) -> bool {
    openmp::adopt(&library)
}

/// Releases the interpreter and calls `f` with the standard floating-point environment.
pub(crate) fn detached<T: Send>(py: Python<'_>, f: impl FnOnce() -> T + Send) -> T {
    py.detach(|| environment::standard(f))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(suggest_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(set_own_threads, module)?)?;
    module.add_function(wrap_pyfunction!(use_openmp, module)?)?;
    module.add_function(wrap_pyfunction!(is_thread_count, module)?)
}
