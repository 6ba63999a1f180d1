//! The engine of the optimizers of `fastoptim.torch`: the methods that Python calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastoptim::step::Regularization;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::TensorSet;
use super::step::Arguments;
use crate::memory::items::Items;
use crate::memory::tensor::Torch;
use crate::optim::engine::parameter_set;
use crate::optim::regularizer;
use crate::optim::state::Expected;
use crate::optim::step::{options, real};
use crate::runtime::commit::Then;
use crate::runtime::exclusive::{Busy, Exclusive, Held};

/// Tensors in groups, with one kind of optimizer. The state is in Python: the engine checks all
/// tensors in each call, except the state while no other code can have a reference to it. To know
/// that, it owns the dictionary of the state.
#[pyclass(module = "fastoptim._core", frozen)]
pub(crate) struct TensorEngine {
    set: Exclusive<TensorSet>,
    /// No Python code runs while the lock is held.
    state: Mutex<Py<PyAny>>,
    /// Whether the state was requested since the last step began.
    touched: AtomicBool,
}

impl TensorEngine {
    fn dict(&self) -> MutexGuard<'_, Py<PyAny>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that other code may change the state, and releases the references of the plans.
    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
        let held = self.set.lock().map(|mut inner| inner.release());
        // Destructors may run Python code, which can use the engine.
        drop(held);
    }

    /// Returns the dictionary of the state.
    fn dict_of<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = self.dict().clone_ref(py).into_bound(py);
        let wrong = |_| PyTypeError::new_err("state must be a dict of dicts, by parameter");
        state.cast_into().map_err(wrong)
    }

    fn lock(&self) -> PyResult<Held<'_, TensorSet>> {
        self.set.lock().map_err(|busy| {
            PyRuntimeError::new_err(match busy {
                Busy::SameThread => {
                    "the optimizer was called from within one of its own calls: by a function \
                     among its hyperparameters, or by what makes its tensors"
                }
                Busy::OtherThread => "another thread is in a call of this optimizer",
            })
        })
    }
}

#[pymethods]
impl TensorEngine {
    /// `support` has functions that use PyTorch. `counted` says whether PyTorch counts steps in the
    /// state of each parameter.
    #[new]
    #[expect(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        kind: &str,
        state_dtype: Option<&str>,
        rounding: &str,
        seed: &Bound<'_, PyAny>,
        defaults: Py<PyDict>,
        counted: bool,
        support: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let set = parameter_set(py, kind, state_dtype, rounding, seed)?;
        let set = TensorSet::new(py, set, Torch::new(support)?, defaults, counted);
        Ok(Self {
            set: Exclusive::new(set),
            state: Mutex::new(PyDict::new(py).into_any().unbind()),
            touched: AtomicBool::new(true),
        })
    }

    /// Returns the state of the parameters, which the caller may change.
    #[getter]
    fn state(&self, py: Python<'_>) -> Py<PyAny> {
        self.touch();
        self.dict().clone_ref(py)
    }

    fn set_state(&self, state: Py<PyAny>) {
        self.touch();
        let before = std::mem::replace(&mut *self.dict(), state);
        drop(before);
    }

    /// Returns the number of steps applied so far.
    #[getter]
    fn steps(&self) -> PyResult<u64> {
        Ok(self.lock()?.set.steps)
    }

    fn set_steps(&self, steps: u64) -> PyResult<()> {
        self.lock()?.set.steps = steps;
        Ok(())
    }

    /// Checks the hyperparameters of groups.
    fn check_groups(&self, groups: &Bound<'_, PyList>) -> PyResult<()> {
        self.lock()?.read_groups(groups)
    }

    /// Returns whether schedule-free parameters are at their averaged iterate.
    #[getter]
    fn averaged(&self) -> PyResult<bool> {
        Ok(self.lock()?.set.averaged)
    }

    fn set_averaged(&self, averaged: bool) -> PyResult<()> {
        self.lock()?.set.averaged = averaged;
        Ok(())
    }

    /// Moves the parameters of schedule-free groups from the point of gradients to the averaged
    /// iterate, or back. Makes the calls of `then` afterwards.
    fn average(&self, groups: &Bound<'_, PyList>, averaged: bool, then: Then<'_>) -> PyResult<()> {
        let inner = &mut *self.lock()?;
        let state = self.dict_of(groups.py())?;
        inner.average(groups, &state, averaged)?;
        then.run()
    }

    /// Returns the state that parameters of these groups may have. Each parameter is given as
    /// group, dtype and shape.
    fn expected(
        &self,
        groups: &Bound<'_, PyList>,
        parameters: Items<(usize, String, Vec<usize>)>,
    ) -> PyResult<Vec<Expected>> {
        self.lock()?.expected(groups, &parameters)
    }

    /// Decodes 8-bit codes into `out`.
    fn decode(
        &self,
        codes: &Bound<'_, PyAny>,
        scales: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.lock()?.decode(codes, scales, out)
    }

    /// Encodes numbers as 8-bit codes and scales.
    fn encode(
        &self,
        numbers: &Bound<'_, PyAny>,
        codes: &Bound<'_, PyAny>,
        scales: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.lock()?.encode(numbers, codes, scales)
    }

    /// Discards all plans.
    fn forget(&self) -> PyResult<()> {
        self.lock()?.forget();
        Ok(())
    }

    /// Runs one step over all groups. Returns whether it was applied and the norm for clipping, or
    /// `None` if it was applied and no norm was requested. Makes the calls of `then` if it was
    /// applied.
    #[pyo3(signature = (
        groups, loss_scale, max_norm, clip_value, nonfinite, regularizer, average, copy,
        zero_grad, then=None
    ))]
    #[expect(clippy::too_many_arguments)]
    fn step(
        &self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        #[pyo3(from_py_with = real)] loss_scale: f64,
        #[pyo3(from_py_with = real)] max_norm: Option<f64>,
        #[pyo3(from_py_with = real)] clip_value: Option<f64>,
        nonfinite: &str,
        #[pyo3(from_py_with = regularizer::read)] regularizer: Regularization,
        average: Option<(Items<Bound<'_, PyAny>>, f64)>,
        copy: Option<Items<Bound<'_, PyAny>>>,
        zero_grad: bool,
        then: Option<Then<'_>>,
    ) -> PyResult<Option<(bool, Option<f64>)>> {
        let options = options(loss_scale, max_norm, clip_value, nonfinite, regularizer)?;
        let mut inner = self.lock()?;
        let state = self.dict_of(py)?;
        let arguments = Arguments {
            groups,
            state: &state,
            average: average.map(|(tensors, weight)| (tensors.into_iter().collect(), weight)),
            copy: copy.map(|tensors| tensors.into_iter().collect()),
            zero_grad,
            touched: &self.touched,
        };
        let (applied, norm) = inner.step(py, &arguments, &options)?;
        if applied && let Some(then) = then {
            then.run()?;
        }
        Ok((!applied || norm.is_some()).then_some((applied, norm)))
    }

    /// Visits the references for the garbage collector. Visits none during a call, so that all are
    /// kept.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let (Ok(inner), Ok(state)) = (self.set.lock(), self.state.try_lock()) else {
            return Ok(());
        };
        visit.call(&*state)?;
        inner.traverse(&visit)
    }

    fn __clear__(&self) {
        let Ok(mut inner) = self.set.lock() else {
            return;
        };
        let held = inner.release();
        let groups = std::mem::take(&mut inner.set.groups);
        let parameters = std::mem::take(&mut inner.set.parameters);
        let plans = std::mem::take(&mut inner.plans);
        // Destructors may run Python code, which can use the empty engine.
        drop(inner);
        drop((held, groups, parameters, plans));
        let state = Python::attach(|py| std::mem::replace(&mut *self.dict(), py.None()));
        drop(state);
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    super::pairs::register(module)?;
    module.add_class::<TensorEngine>()
}
