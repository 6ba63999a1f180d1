//! Updates of Python objects that a signal cannot interrupt halfway, such as Ctrl-C.
//!
//! CPython runs signal handlers between two bytecode instructions, so an exception can occur
//! between any two of them, but not inside a call of this module or of a C function.

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PySequence, PyTuple};

/// Calls that a function of this module makes after its own work, each a tuple of a function and
/// its arguments. They update the state that is stored in Python. The functions must be C
/// functions, such as `dict.update`, so that no signal is handled during or between them.
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

/// Calls C functions one after another, so that no signal is handled between them.
#[pyfunction]
fn call_all(calls: Then<'_>) -> PyResult<()> {
    calls.run()
}

/// Calls `action()` and returns its result. If it raises, calls `settle()` before the error
/// propagates, and calls it again if an interrupt stops it, so `settle` must be safe to call
/// repeatedly.
///
/// A `finally` clause in Python may itself be interrupted, or an interrupt may occur just before
/// its `try` statement.
#[pyfunction]
fn attempt<'py>(
    py: Python<'py>,
    action: &Bound<'py, PyAny>,
    settle: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    /// More often than a user presses Ctrl-C. It ends the loop if `settle` always fails.
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
