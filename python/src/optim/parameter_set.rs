//! The parameters of an optimizer in their groups, with their state.

use std::ops::Range;
use std::sync::OnceLock;

use fastoptim::optim::StateSpec;
use fastoptim::optim::schedule_free::{average_weight, blend, gradient_weight};
use fastoptim::storage::Rounding;
use pyo3::exceptions::PyIndexError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::memory::inflight::{self, Ranges};
use crate::memory::numpy::with_float;
use crate::optim::gradients::Apart;
use crate::optim::group::{Group, Keys};
use crate::optim::parameter::{Parameter, Slot, Storage};
use crate::optim::segments::Kept;
use crate::runtime::threads::detached;

pub(crate) struct ParameterSet {
    pub(super) keys: Keys,
    pub(super) storage: Storage,
    pub(super) groups: Vec<Group>,
    pub(super) parameters: Vec<Parameter>,
    /// The elements of each parameter that this process has, or `None` if it has all.
    pub(super) parts: Option<Vec<Range<usize>>>,
    /// Whether the parameters are the pieces of one buffer, in order and without gaps.
    pub(super) flat: bool,
    /// Whether schedule-free parameters are at their averaged iterate.
    pub(super) averaged: bool,
    /// All memory that a step may write, sorted. Computed again after an allocation.
    pub(super) written: OnceLock<Ranges>,
    /// Whether the parameters are known to have all state arrays that the groups require.
    pub(super) allocated: bool,
    /// The gradients that are known to share no memory with `written`.
    pub(super) apart: Apart,
    /// The segments of the last step.
    pub(super) kept: Kept,
    /// The number of steps applied so far, the argument of hyperparameters that are functions.
    pub(super) steps: u64,
}

impl ParameterSet {
    /// Creates a set without parameters.
    pub(super) fn new(keys: Keys, storage: Storage) -> Self {
        Self {
            keys,
            storage,
            groups: Vec::new(),
            parameters: Vec::new(),
            parts: None,
            flat: false,
            averaged: false,
            written: OnceLock::new(),
            allocated: false,
            apart: Apart::default(),
            kept: Kept::default(),
            steps: 0,
        }
    }

    /// Prepares for other parameters, or for other or restored state arrays.
    pub(super) fn reset(&mut self) {
        self.written = OnceLock::new();
        self.kept = Kept::default();
        self.allocated = false;
    }

    pub(super) fn parameter(&self, index: usize) -> PyResult<&Parameter> {
        self.parameters.get(index).ok_or_else(|| {
            PyIndexError::new_err(format!(
                "parameter {index} of {} parameters",
                self.parameters.len()
            ))
        })
    }

    /// Returns the state arrays that a step of a parameter uses.
    pub(super) fn specs(&self, parameter: &Parameter) -> &'static [StateSpec] {
        let method = &self.groups[parameter.group].method;
        method.state(parameter.layout.shape.len())
    }

    /// Returns, for a schedule-free parameter with at least one step, the array for [`blend`] and
    /// the `beta` of its group.
    pub(super) fn averaging<'a>(&self, parameter: &'a Parameter) -> Option<(&'a Slot, f64)> {
        let beta = self.groups[parameter.group].method.averaging()?;
        let slot = parameter.slot(self.specs(parameter).first()?.name)?;
        slot.started.then_some((slot, beta))
    }

    /// Moves the parameters of schedule-free groups from the point of gradients to the averaged
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
        let _guard = inflight::register(self.written(), Vec::new())?;
        // SAFETY: `check` has just passed, and `self` holds the arrays. Parameters and state share
        // no memory, and `_guard` excludes other calls.
        unsafe { self.blend(py, averaged) };
        self.averaged = averaged;
        Ok(())
    }

    /// Moves the parameters as `average` does.
    ///
    /// # Safety
    /// The parameters that have been stepped, and their state, are alive with their layouts, and no
    /// other code accesses their memory.
    pub(super) unsafe fn blend(&self, py: Python<'_>, averaged: bool) {
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
                // SAFETY: by this function's contract.
                let (p, z) = unsafe {
                    (parameter.view::<T>(|| Rounding::Nearest), z.view(|| Rounding::Nearest))
                };
                detached(py, || blend(p, z, weight));
            });
        }
    }

    /// Visits the references for the garbage collector.
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
