//! The communication of a sharded step, through an object of the front end.

use std::sync::{Mutex, PoisonError};

use fastoptim::step::AllReduce;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;

/// An object through which the processes of a step communicate. Its methods are collective.
pub(super) struct Exchange<'py>(pub(super) Bound<'py, PyAny>);

impl<'py> Exchange<'py> {
    /// Finds that the checks of all processes have passed, and returns the summed gradients of the
    /// parts of this process, as one array or one for each parameter.
    pub(super) fn begin(&self, grads: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.call_method1("begin", (grads,))
    }

    /// Collects the parts of all processes after the step.
    pub(super) fn finish(&self) -> PyResult<()> {
        self.0.call_method0("finish").map(|_| ())
    }

    /// Returns the communication during the step.
    pub(super) fn ranks(&self) -> Ranks {
        Ranks {
            object: self.0.clone().unbind(),
            failure: Mutex::new(None),
        }
    }
}

/// The communication during a step.
pub(super) struct Ranks {
    object: Py<PyAny>,
    failure: Mutex<Option<PyErr>>,
}

impl Ranks {
    /// Returns the first error of a call, after which the results of the step are NaN: they depend
    /// on numbers that were not received.
    pub(super) fn into_result(self) -> PyResult<()> {
        let failure = self.failure.into_inner();
        failure
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    fn call(&self, own: &mut [f64], method: &str) {
        let result = Python::attach(|py| {
            let array = PyArray1::from_slice(py, own);
            self.object.call_method1(py, method, (&array,))?;
            own.copy_from_slice(array.readonly().as_slice()?);
            Ok(())
        });
        if let Err(error) = result {
            own.fill(f64::NAN);
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        }
    }
}

impl AllReduce for Ranks {
    fn sum(&self, own: &mut [f64]) {
        self.call(own, "sum");
    }

    fn max(&self, own: f64) -> f64 {
        let mut all = [own];
        self.call(&mut all, "max");
        all[0]
    }
}
