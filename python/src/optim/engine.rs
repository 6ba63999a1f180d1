//! The engine behind every optimizer class: the methods that Python calls.

use fastoptim::step::Regularization;
use fastoptim::storage::Encoding;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::exchange::Exchange;
use super::parameter_set::ParameterSet;
use super::regularizer;
use super::state::{Expected, Restored, Saved};
use super::step::{Arguments, options, real};
use crate::memory::inflight;
use crate::memory::items::Items;
use crate::optim::group::{Group, Keys};
use crate::optim::parameter::Storage;
use crate::runtime::commit::Then;
use crate::runtime::exclusive::{Busy, Exclusive, Held};

/// The parameters of an optimizer in groups, with their state.
///
/// Calls do not wait for each other: a call during another call raises an error. In a process
/// forked during a step of another thread, that step does not complete: parameters and state are
/// partly written, and the step is not counted.
#[pyclass(module = "fastoptim._core", frozen)]
pub(crate) struct Engine(Exclusive<ParameterSet>);

impl Engine {
    /// Returns whether another thread is in a call.
    pub(super) fn is_busy_elsewhere(&self) -> bool {
        matches!(self.0.lock(), Err(Busy::OtherThread))
    }

    /// Locks the parameters for one call.
    pub(super) fn lock(&self) -> PyResult<Held<'_, ParameterSet>> {
        self.0.lock().map_err(|busy| {
            PyRuntimeError::new_err(match busy {
                Busy::SameThread => {
                    "the optimizer was called from within one of its own calls: by a function \
                     among its hyperparameters, or by the gradients that it was given"
                }
                Busy::OtherThread => "another thread is in a call of this optimizer",
            })
        })
    }
}

#[pymethods]
impl Engine {
    /// Creates an engine without parameters. `parts` are the first and the last bounds of the
    /// elements of each parameter that this process updates, if others update the rest.
    #[new]
    #[pyo3(signature = (kind, state_dtype, rounding, seed, parts=None))]
    fn new(
        py: Python<'_>,
        kind: &str,
        state_dtype: Option<&str>,
        rounding: &str,
        seed: &Bound<'_, PyAny>,
        parts: Option<Items<(usize, usize)>>,
    ) -> PyResult<Self> {
        let mut parameters = parameter_set(py, kind, state_dtype, rounding, seed)?;
        let range = |(start, end)| start..end;
        parameters.parts = parts.map(|parts| parts.into_iter().map(range).collect());
        Ok(Self(Exclusive::new(parameters)))
    }

    /// Returns whether schedule-free parameters are at their averaged iterate.
    #[getter]
    fn averaged(&self) -> PyResult<bool> {
        Ok(self.lock()?.averaged)
    }

    /// Returns the number of steps applied so far.
    #[getter]
    fn steps(&self) -> PyResult<u64> {
        Ok(self.lock()?.steps)
    }

    /// Checks that the groups are those that were added.
    fn check_groups(&self, groups: &Bound<'_, PyList>) -> PyResult<()> {
        self.lock()?.check_groups(groups.iter())
    }

    /// Adds a group and allocates its state. Adds nothing on error. `flat` says that the arrays are
    /// those of one buffer. Makes the calls of `then` after the group was added.
    #[pyo3(signature = (group, names, arrays, flat, then=None))]
    fn add_group(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyDict>,
        names: Items<String>,
        arrays: Items<Bound<'_, PyAny>>,
        flat: bool,
        then: Option<Then<'_>>,
    ) -> PyResult<()> {
        let inner = &mut *self.lock()?;
        inner.add_group(py, group, names, &arrays, flat)?;
        then.map_or(Ok(()), |then| then.run())
    }

    /// Moves the parameters of schedule-free groups from the point of gradients to the averaged
    /// iterate, or back.
    fn average(&self, py: Python<'_>, groups: &Bound<'_, PyList>, averaged: bool) -> PyResult<()> {
        self.lock()?.average(py, groups, averaged)
    }

    /// Runs one step over all groups. Returns whether it was applied and the norm for clipping, or
    /// `None` if it was applied and no norm was requested. Makes the calls of `then` if it was
    /// applied. Sharded parameters are updated together with other processes, which `exchange`
    /// communicates with by its methods: `begin(grads)` agrees that all have passed their checks
    /// and returns the summed gradients of the parts of this process, `sum(array)` and
    /// `max(array)` combine an array in place, and `finish()` collects the parts after the
    /// update.
    #[pyo3(signature = (
        groups, grads, loss_scale, max_norm, clip_value, nonfinite, regularizer, average, copy,
        zero_grad, then=None, exchange=None
    ))]
    #[expect(clippy::too_many_arguments)]
    fn step(
        &self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        grads: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = real)] loss_scale: f64,
        #[pyo3(from_py_with = real)] max_norm: Option<f64>,
        #[pyo3(from_py_with = real)] clip_value: Option<f64>,
        nonfinite: &str,
        #[pyo3(from_py_with = regularizer::read)] regularizer: Regularization,
        average: Option<(Items<Bound<'_, PyAny>>, f64)>,
        copy: Option<Items<Bound<'_, PyAny>>>,
        zero_grad: bool,
        then: Option<Then<'_>>,
        exchange: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Option<(bool, Option<f64>)>> {
        let options = options(loss_scale, max_norm, clip_value, nonfinite, regularizer)?;
        let arguments = Arguments {
            groups,
            grads,
            average,
            copy,
            zero_grad,
            exchange: exchange.map(Exchange),
        };
        // Held until the calls of `then` have been made.
        let mut inner = self.lock()?;
        let (applied, norm) = inner.step(py, &arguments, &options)?;
        if applied && let Some(then) = then {
            then.run()?;
        }
        Ok((!applied || norm.is_some()).then_some((applied, norm)))
    }

    /// Sets all gradients to 0.
    fn zero_grad(&self, py: Python<'_>, grads: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut inner = self.lock()?;
        let gradients = inner.gradients(grads)?;
        inner.require_writable(&gradients)?;
        let written = inner.written();
        let zeroed = inner.read(&gradients, &written)?;
        let _guard = inflight::enter(zeroed, Vec::new())?;
        // SAFETY: the gradients are writable, and `_guard` excludes other calls.
        unsafe { gradients.clear(py) };
        Ok(())
    }

    /// Returns the number of steps of one parameter.
    fn parameter_step(&self, index: usize) -> PyResult<u64> {
        Ok(self.lock()?.parameter(index)?.progress.steps)
    }

    /// Returns the scalars in the state of one parameter, not counting its step.
    fn scalars(&self, index: usize) -> PyResult<Vec<(&'static str, f64)>> {
        let inner = self.lock()?;
        Ok(inner.numbers(inner.parameter(index)?))
    }

    /// Returns views of the state arrays of one parameter by name, each with whether it has been
    /// written.
    fn state<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Vec<(String, Bound<'py, PyAny>, bool)>> {
        ParameterSet::views(py, self.lock()?.parameter(index)?)
    }

    /// Returns a copy of the state of all parameters, or `None` for parameters without a step.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Vec<Option<Saved<'py>>>> {
        // The arrays are copied after the engine is unlocked, so that other threads may also read
        // it.
        let (mut saved, _guard) = {
            let inner = self.lock()?;
            let guard = inflight::enter(Vec::new(), inner.written().to_vec())?;
            (inner.saved(py)?, guard)
        };
        for (_, _, arrays) in saved.iter_mut().flatten() {
            for (_, array) in arrays {
                *array = array.call_method0("copy")?;
            }
        }
        Ok(saved)
    }

    /// Returns the valid state of each parameter with other groups after `steps` steps.
    fn expected(&self, groups: Items<Bound<'_, PyAny>>, steps: u64) -> PyResult<Vec<Expected>> {
        let inner = self.lock()?;
        inner.check_groups(groups.iter().cloned())?;
        let read = |group| inner.keys.read(group, steps);
        let groups: Vec<Group> = groups.iter().map(read).collect::<PyResult<_>>()?;
        Ok(inner.expect(&groups))
    }

    /// Restores groups and a state that conforms to `expected`. State arrays that are not given are
    /// set to zeros.
    #[pyo3(signature = (groups, state, steps, averaged, then=None))]
    fn restore(
        &self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        state: Items<Restored<'_>>,
        steps: u64,
        averaged: bool,
        then: Option<Then<'_>>,
    ) -> PyResult<()> {
        let inner = &mut *self.lock()?;
        inner.restore(py, groups, &state, steps)?;
        inner.averaged = averaged;
        then.map_or(Ok(()), |then| then.run())
    }

    /// Visits the references for the garbage collector. Visits nothing while a call is in progress,
    /// so that nothing is collected.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(inner) = self.0.lock() else {
            return Ok(());
        };
        inner.traverse(&visit)
    }

    fn __clear__(&self) {
        let Ok(mut inner) = self.0.lock() else {
            return;
        };
        let groups = std::mem::take(&mut inner.groups);
        let parameters = std::mem::take(&mut inner.parameters);
        inner.reset();
        // Dropping them may run Python code, which must find the engine empty and unlocked.
        drop(inner);
        drop((groups, parameters));
    }
}

/// Creates a set without parameters for one kind of optimizer.
pub(super) fn parameter_set(
    py: Python<'_>,
    kind: &str,
    state_dtype: Option<&str>,
    rounding: &str,
    seed: &Bound<'_, PyAny>,
) -> PyResult<ParameterSet> {
    let keys = Keys::named(py, kind)?;
    let refuse = |name: &str, words: &str, got: &str| {
        let message = format!("{name} must be {words}, got {got:?}");
        Err(PyValueError::new_err(message))
    };
    let named = |name| Encoding::MOMENTS.into_iter().find(|it| it.name() == name);
    let moments = state_dtype.and_then(named);
    if let (None, Some(got)) = (moments, state_dtype) {
        let words = Encoding::MOMENTS.map(|it| format!("'{}'", it.name()));
        let words = format!("{} or None", words.join(", "));
        return refuse("state_dtype", &words, got);
    }
    let stochastic = match rounding {
        "stochastic" => true,
        "nearest" => false,
        got => return refuse("rounding", "'stochastic' or 'nearest'", got),
    };
    if seed.is_instance_of::<pyo3::types::PyBool>() {
        return Err(PyTypeError::new_err("seed must be an integer, got a bool"));
    }
    let index = seed
        .call_method0("__index__")
        .map_err(|_| PyTypeError::new_err(format!("seed must be an integer, got {seed}")))?;
    let seed = index.extract::<u64>().map_err(|_| {
        PyValueError::new_err(format!("seed must be >= 0 and fit 64 bits, got {seed}"))
    })?;
    let storage = Storage {
        moments,
        stochastic,
        seed,
    };
    Ok(ParameterSet::new(keys, storage))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()?;
    Ok(())
}
