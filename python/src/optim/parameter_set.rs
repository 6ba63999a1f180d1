//! The parameters of an optimizer in their groups, with their state.

use std::sync::OnceLock;

use fastoptim::optim::StateSpec;
use fastoptim::optim::schedule_free::{average_weight, blend, gradient_weight};
use fastoptim::step::StepContext;
use fastoptim::storage::Rounding;
use pyo3::exceptions::PyIndexError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::memory::inflight::{self, Ranges};
use crate::memory::numpy::with_float;
use crate::optim::group::{Group, Keys};
use crate::optim::parameter::{Parameter, Slot, Storage};

pub(crate) struct ParameterSet {
    pub(super) keys: Keys,
    pub(super) storage: Storage,
    pub(super) groups: Vec<Group>,
    pub(super) parameters: Vec<Parameter>,
    /// Whether the parameters are the pieces of one buffer, in order, without gaps.
    pub(super) flat: bool,
    /// Whether schedule-free parameters are at their averaged iterate.
    pub(super) averaged: bool,
    /// All memory that a step may write, sorted; made anew when there is more.
    pub(super) written: OnceLock<Ranges>,
    /// Steps applied so far: the argument of hyperparameters that are functions.
    pub(super) steps: u64,
}

impl ParameterSet {
    /// A set without parameters.
    pub(super) fn new(keys: Keys, storage: Storage) -> Self {
        Self {
            keys,
            storage,
            groups: Vec::new(),
            parameters: Vec::new(),
            flat: false,
            averaged: false,
            written: OnceLock::new(),
            steps: 0,
        }
    }

    pub(super) fn parameter(&self, index: usize) -> PyResult<&Parameter> {
        self.parameters.get(index).ok_or_else(|| {
            PyIndexError::new_err(format!(
                "parameter {index} of {} parameters",
                self.parameters.len()
            ))
        })
    }

    /// The state arrays that a step of a parameter uses.
    pub(super) fn specs(&self, parameter: &Parameter) -> &'static [StateSpec] {
        let method = &self.groups[parameter.group].method;
        method.state(parameter.layout.shape.len())
    }

    /// The context of a parameter in the next step.
    pub(super) fn context(&self, parameter: &Parameter) -> StepContext {
        let started = |spec: &StateSpec| {
            let slot = parameter.slot(spec.name);
            slot.is_some_and(|slot| slot.started)
        };
        let fresh = !self.specs(parameter).iter().any(started);
        parameter.progress.context(fresh)
    }

    /// Of a schedule-free parameter that has been stepped, the array that [`blend`] takes and the
    /// `beta` of its group.
    pub(super) fn averaging<'a>(&self, parameter: &'a Parameter) -> Option<(&'a Slot, f64)> {
        let beta = self.groups[parameter.group].method.averaging()?;
        let slot = parameter.slot(self.specs(parameter).first()?.name)?;
        slot.started.then_some((slot, beta))
    }

    /// Moves the parameters of schedule-free groups from where gradients are taken to the averaged
    /// iterate, or back.
    pub(super) fn average(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        averaged: bool,
    ) -> PyResult<()> {
        if averaged == self.averaged {
            return Ok(());
        }
        self.read_groups(groups)?;
        for parameter in &self.parameters {
            parameter.check(py)?;
        }
        let _guard = inflight::register(self.written(), Vec::new().into())?;
        for parameter in &self.parameters {
            let Some((z, beta)) = self.averaging(parameter) else {
                continue;
            };
            let weight = if averaged {
                average_weight(beta)
            } else {
                gradient_weight(beta)
            };
            with_float!(parameter.layout.dtype.arithmetic(), T => {
                // SAFETY: `check` has just passed, and `self` holds the array; parameters and state
                // share no memory, and `_guard` keeps other calls from theirs.
                let (p, z) = unsafe {
                    (parameter.view::<T>(|| Rounding::Nearest), z.view(|| Rounding::Nearest))
                };
                py.detach(|| blend(p, z, weight));
            });
        }
        self.averaged = averaged;
        Ok(())
    }

    /// Shows the garbage collector what this holds.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for group in &self.groups {
            group.traverse(visit)?;
        }
        for parameter in &self.parameters {
            visit.call(&parameter.array)?;
        }
        Ok(())
    }
}
