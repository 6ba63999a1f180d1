//! The engine behind the optimizers of `fastoptim.torch`: the methods that Python calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastoptim::step::{Nonfinite, Options, Regularization};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::TensorSet;
use super::step::Arguments;
use crate::error::to_py;
use crate::memory::items::Items;
use crate::memory::tensor::Torch;
use crate::optim::engine::parameter_set;
use crate::optim::regularizer;
use crate::optim::state::Expected;
use crate::optim::step::real;
use crate::runtime::commit::Then;
use crate::runtime::exclusive::{Busy, Exclusive, Held};

/// Tensors in groups under one kind of optimizer. It keeps no state of its own but the number of
/// steps: what it knows of tensors is checked anew in each call, except for the state while nobody
/// else can have it. It has the dictionary of the state for that, and hands it out.
#[pyclass(module = "fastoptim._core", frozen)]
pub(crate) struct TensorEngine {
    set: Exclusive<TensorSet>,
    /// The lock is held for no call of Python.
    state: Mutex<Py<PyAny>>,
    /// Whether somebody has asked for the state since the last step began.
    touched: AtomicBool,
}

impl TensorEngine {
    fn dict(&self) -> MutexGuard<'_, Py<PyAny>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody may change the state, which is then his alone.
    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
        let held = self.set.lock().map(|mut inner| inner.release());
        // What ends with it may run code of Python, which finds the engine free.
        drop(held);
    }

    /// The state for a call.
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
    /// `support` has the functions of PyTorch that are needed; `counted` says that the state of a
    /// parameter has its steps in PyTorch, too.
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

    /// The state of the parameters, which whoever asks for it may change.
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

    /// Steps applied so far.
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

    /// Whether schedule-free parameters are at their averaged iterate.
    #[getter]
    fn averaged(&self) -> PyResult<bool> {
        Ok(self.lock()?.set.averaged)
    }

    fn set_averaged(&self, averaged: bool) -> PyResult<()> {
        self.lock()?.set.averaged = averaged;
        Ok(())
    }

    /// Moves the parameters of schedule-free groups from where gradients are taken to the averaged
    /// iterate, or back. The calls of `then` are made where they have moved.
    fn average(&self, groups: &Bound<'_, PyList>, averaged: bool, then: Then<'_>) -> PyResult<()> {
        let inner = &mut *self.lock()?;
        let state = self.dict_of(groups.py())?;
        inner.average(groups, &state, averaged)?;
        then.run()
    }

    /// What the state of parameters of these groups may be, each given by its group, dtype and shape.
    fn expected(
        &self,
        groups: &Bound<'_, PyList>,
        parameters: Items<(usize, String, Vec<usize>)>,
    ) -> PyResult<Vec<Expected>> {
        self.lock()?.expected(groups, &parameters)
    }

    /// Writes the numbers that codes in 8 bits stand for into `out`.
    fn decode(
        &self,
        codes: &Bound<'_, PyAny>,
        scales: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.lock()?.decode(codes, scales, out)
    }

    /// Writes the codes in 8 bits of numbers, and their scales.
    fn encode(
        &self,
        numbers: &Bound<'_, PyAny>,
        codes: &Bound<'_, PyAny>,
        scales: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.lock()?.encode(numbers, codes, scales)
    }

    /// Forgets what was checked.
    fn forget(&self) -> PyResult<()> {
        self.lock()?.forget();
        Ok(())
    }

    /// One step over all groups: whether it was applied, and the norm that clipping used; nothing
    /// where it was and no norm was asked for. The calls of `then` are made where it was applied.
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
        let options = Options {
            loss_scale,
            regularization: regularizer,
            clip_value,
            max_norm,
            nonfinite: Nonfinite::from_name(nonfinite).map_err(to_py)?,
        };
        options.check().map_err(to_py)?;
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

    /// Shows the garbage collector what this holds; nothing while a call is in progress, which makes
    /// it keep all of it.
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
        // What ends with them may run code of Python, which finds the engine empty and free.
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
