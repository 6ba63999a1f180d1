//! What keeps objects in Python whole when a signal raises an exception, as Ctrl-C does.
//!
//! CPython runs signal handlers between two instructions of Python code, so an exception can come
//! between any two of them, but never inside a call into this module or into a C function.

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PySequence, PyTuple};

/// Calls that a call into this module makes when its work is done, each a tuple of a function and
/// its arguments: the part of the work that is kept in Python. They are to be functions in C, such
/// as `dict.update`, so that nothing comes between them either.
pub(crate) struct Then<'py>(Vec<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>);

impl<'py> FromPyObject<'_, 'py> for Then<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let wrong = || PyTypeError::new_err("calls must be tuples of a function and its arguments");
        let calls = object
            .cast::<PySequence>()
            .map_err(|_| wrong())?
            .to_tuple()?;
        let call = |call: Bound<'py, PyAny>| {
            let call = call.cast_into::<PyTuple>().map_err(|_| wrong())?;
            let function = call.get_item(0).map_err(|_| wrong())?;
            if !function.is_callable() {
                return Err(wrong());
            }
            Ok((function, call.get_slice(1, call.len())))
        };
        calls.iter().map(call).collect::<PyResult<_>>().map(Self)
    }
}

impl Then<'_> {
    /// Makes the calls.
    pub(crate) fn run(&self) -> PyResult<()> {
        for (function, arguments) in &self.0 {
            function.call1(arguments)?;
        }
        Ok(())
    }
}

/// Makes calls of functions in C one after another, so that no signal is handled between them.
#[pyfunction]
fn call_all(calls: Then<'_>) -> PyResult<()> {
    calls.run()
}

/// Calls `action()` and returns what it does. Where it raises, calls `settle()` before the error
/// goes on, and calls it again where an interrupt stops it: it must bear that.
///
/// A `finally` in Python may be interrupted itself, or miss what comes just before its `try`.
#[pyfunction]
fn attempt<'py>(
    py: Python<'py>,
    action: &Bound<'py, PyAny>,
    settle: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    /// More than a user presses Ctrl-C. It ends what a broken `settle` would make endless.
    const MOST: usize = 100;
    let mut error = match action.call0() {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    for _ in 0..MOST {
        let Err(next) = settle.call0() else { break };
        let interrupt = !next.is_instance_of::<PyException>(py);
        next.set_context(py, Some(error));
        error = next;
        if !interrupt {
            break;
        }
    }
    Err(error)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(call_all, module)?)?;
    module.add_function(wrap_pyfunction!(attempt, module)?)
}
