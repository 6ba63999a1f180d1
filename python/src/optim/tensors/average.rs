//! The two iterates of schedule-free parameters.

use std::sync::atomic::AtomicBool;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::state::Added;
use super::{States, TensorSet};
use crate::memory::inflight;

impl TensorSet {
    /// Moves the parameters from the point of gradients to the averaged iterate, or back.
    pub(super) fn average(
        &mut self,
        groups: &Bound<'_, PyList>,
        state: &Bound<'_, PyDict>,
        averaged: bool,
    ) -> PyResult<()> {
        if averaged == self.set.averaged {
            return Ok(());
        }
        let py = groups.py();
        self.read_groups(groups)?;
        let objects = self.parameters(groups)?;
        let mut states = States::new(state);
        let active: Vec<bool> = objects.iter().map(|p| states.find(p).is_some()).collect();
        let mut added = Added::default();
        let touched = AtomicBool::new(true);
        self.check(state, &objects, &active, |_| false, &touched, &mut added)?;
        for (index, active) in active.iter().enumerate() {
            if !active {
                self.set.parameters[index].slots.clear();
                self.plans[index].checked = false;
            }
        }
        self.sort_written()?;
        let mut staged = self.stage();
        let guard = inflight::register(self.set.written(), Vec::new())?;
        for copy in &mut staged {
            // SAFETY: the tensors are held, and `guard` keeps other calls from their memory.
            unsafe { copy.gather() };
        }
        // SAFETY: `check` found the parameters with state, and their state, to have the layouts of
        // the set. `objects` and the plans hold them, `sort_written` checked that they
        // share no memory, and `guard` excludes other calls. Other parameters have no
        // slots.
        unsafe { self.set.blend(py, averaged) };
        for copy in &mut staged {
            // SAFETY: as above.
            unsafe { copy.scatter() };
        }
        drop(guard);
        self.set.averaged = averaged;
        let moved = objects.iter().zip(active).filter(|(_, active)| *active);
        let moved: Vec<_> = moved.map(|(object, _)| object).collect();
        self.torch.changed(py, &moved)
    }
}
