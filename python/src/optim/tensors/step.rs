//! One step over tensors.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use fastoptim::step::{self, Local, Options, StepOutcome};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::gradients::{Copies, Signs};
use super::plan::references;
use super::state::{Added, not_dict};
use super::{States, TensorSet};
use crate::memory::inflight;
use crate::memory::numpy::{Address, Memory};
use crate::optim::gradients::Gradients;
use crate::optim::outputs::Outputs;
use crate::optim::segments::Kept;
use crate::runtime::threads::detached;

/// How often tensors may change while a step checks them: by Python code that creates or describes
/// tensors.
const ATTEMPTS: usize = 8;

/// The arguments of one step that are objects of Python.
pub(super) struct Arguments<'a, 'py> {
    pub(super) groups: &'a Bound<'py, PyList>,
    pub(super) state: &'a Bound<'py, PyDict>,
    pub(super) average: Option<(Vec<Bound<'py, PyAny>>, f64)>,
    pub(super) copy: Option<Vec<Bound<'py, PyAny>>>,
    pub(super) zero_grad: bool,
    /// Whether the state was requested since this was last cleared.
    pub(super) touched: &'a AtomicBool,
}

impl TensorSet {
    /// Runs one step over all groups. Returns whether it was applied, and the norm for clipping.
    pub(super) fn step(
        &mut self,
        py: Python<'_>,
        arguments: &Arguments<'_, '_>,
        options: &Options,
    ) -> PyResult<(bool, Option<f64>)> {
        self.set.check_mode()?;
        self.read_groups(arguments.groups)?;
        let objects = self.parameters(arguments.groups)?;
        let mut grads = Vec::with_capacity(objects.len());
        for object in &objects {
            let grad = self.torch.grad(object)?;
            grads.push((!grad.is_none()).then_some(grad));
        }
        let mut added = Added::default();
        let found = self.run(py, arguments, options, &objects, &grads, &mut added);
        if !found.as_ref().is_ok_and(|outcome| outcome.applied) {
            self.remove(arguments.state, &objects, &added);
        }
        let outcome = found?;
        if outcome.applied {
            self.bump(py, &objects, &grads, arguments)?;
        }
        Ok((outcome.applied, outcome.norm))
    }

    fn run<'py>(
        &mut self,
        py: Python<'py>,
        arguments: &Arguments<'_, 'py>,
        options: &Options,
        objects: &[Bound<'py, PyAny>],
        grads: &[Option<Bound<'py, PyAny>>],
        added: &mut Added<'py>,
    ) -> PyResult<StepOutcome> {
        let known = self.unchanged(py, arguments, objects, grads)?;
        let (mut copies, outputs, gradients) = match known {
            Some(gradients) => {
                let outputs = Outputs::of(None, None, arguments.zero_grad);
                (Copies::default(), outputs, gradients)
            }
            None => self.checked(py, arguments, objects, grads, added)?,
        };
        let (written, read) = self.disjoint(&gradients, &outputs, &mut copies)?;
        self.share_numbers(added);
        copies.staged.extend(self.stage());
        let guard = inflight::register(written, read)?;
        debug_assert!(
            !self.moved,
            "`sort_written` has been called after the last change"
        );
        let mut kept = mem::take(&mut self.set.kept);
        if !copies.staged.is_empty() {
            // Copies are at other addresses in each step.
            kept = Kept::default();
        }

        // SAFETY: `check` found every parameter of this step, and its state, to have the layouts of
        // the set, and `objects`, `grads` and the plans hold references to them. Written
        // memory was checked to share nothing with other memory of this step, and `guard`
        // excludes other calls.
        let mut segments = unsafe { self.set.current_segments(kept, &gradients, &outputs) };
        let groups = &mut segments.groups;
        let staged = &mut copies.staged;
        let result = detached(py, || {
            for copy in staged.iter_mut().filter(|copy| copy.read) {
                // SAFETY: the tensors are held, and `guard` excludes other calls from their memory.
                unsafe { copy.gather() };
            }
            let result = step::run(groups, options, &Local);
            if result.as_ref().is_ok_and(|outcome| outcome.applied) {
                for copy in staged.iter_mut().filter(|copy| copy.written) {
                    // SAFETY: as above, and written memory is not shared.
                    unsafe { copy.scatter() };
                }
            }
            result
        });
        drop(guard);
        let started = segments.is_kept();
        let applied = result.as_ref().is_ok_and(|outcome| outcome.applied);
        if copies.staged.is_empty() && (applied || started) {
            self.set.kept = self.set.keep(segments, &gradients);
        }
        let outcome = result.map_err(|error| self.set.failure(error))?;
        if outcome.applied {
            self.set.write_back(&gradients, &outcome, started);
            self.write_numbers();
        }
        Ok(outcome)
    }

    /// Returns the gradients if all layouts are those of the last step and no other code can have
    /// changed the state since. Each parameter and its gradient are read together, while they are
    /// in the cache. No Python code runs.
    fn unchanged<'py>(
        &mut self,
        py: Python<'py>,
        arguments: &Arguments<'_, 'py>,
        objects: &[Bound<'py, PyAny>],
        grads: &[Option<Bound<'py, PyAny>>],
    ) -> PyResult<Option<Gradients<'py>>> {
        let known = self.trusted
            && !self.moved
            && self.active.len() == objects.len()
            && arguments.average.is_none()
            && arguments.copy.is_none()
            && !arguments.touched.load(Ordering::Relaxed)
            && references(arguments.state.as_ptr()) == 2
            && self.torch.is_direct()
            && !self.torch.has_modes(py)?
            && !self.shares_numbers();
        if !known {
            return Ok(None);
        }
        let mut arrays = Vec::with_capacity(objects.len());
        for (index, (object, grad)) in objects.iter().zip(grads).enumerate() {
            if grad.is_some() != self.active[index] {
                return Ok(None);
            }
            let Some(grad) = grad else {
                arrays.push(None);
                continue;
            };
            let plan = &self.plans[index];
            let Some(form) = plan.form.as_ref().filter(|_| plan.in_place && plan.alone) else {
                return Ok(None);
            };
            let len = self.set.parameters[index].layout.len;
            // The elements of a single number have no order, so that it may be a negative view.
            let data = (len > 1 && self.is_planned(index, true))
                .then(|| self.torch.gradient_like(form, object, grad))
                .flatten();
            let Some(data) = data else { return Ok(None) };
            let memory = Memory::of(grad.clone(), Address(data), len, form.dtype);
            arrays.push(Some(memory));
        }
        Ok(Some(Gradients {
            arrays,
            flat: false,
        }))
    }

    /// Checks parameters, state, outputs and gradients, and reads the numbers of the state.
    fn checked<'py>(
        &mut self,
        py: Python<'py>,
        arguments: &Arguments<'_, 'py>,
        objects: &[Bound<'py, PyAny>],
        grads: &[Option<Bound<'py, PyAny>>],
        added: &mut Added<'py>,
    ) -> PyResult<(Copies, Outputs<'py>, Gradients<'py>)> {
        let follows = arguments.average.is_some() || arguments.copy.is_some();
        let (shares, mut states) = (self.shares_numbers(), States::new(arguments.state));
        let mut active = Vec::with_capacity(objects.len());
        for (object, grad) in objects.iter().zip(grads) {
            // Scalars that a step computes over all parameters are written to all of them.
            let written = grad.is_some() || follows;
            active.push(written || (shares && states.find(object).is_some()));
        }
        let wanted = |index: usize| grads[index].is_some();
        let mut signs = Signs::default();
        let checked = loop {
            self.check(
                arguments.state,
                objects,
                &active,
                wanted,
                arguments.touched,
                added,
            )?;
            self.sort_written()?;
            let mut copies = Copies::default();
            let outputs = self.outputs(
                arguments.average.as_ref(),
                arguments.copy.as_deref(),
                arguments.zero_grad,
                &mut copies,
                &mut signs,
            )?;
            let gradients = self.gradients(grads, arguments.zero_grad, &mut copies, &mut signs)?;
            // Python code may have run: check everything again.
            if !signs.asked() || !self.torch.has_modes(py)? {
                break (copies, outputs, gradients);
            }
        };
        self.read_numbers()?;
        Ok(checked)
    }

    /// Checks the `active` parameters and their state, and adds missing entries to the state of the
    /// `wanted` parameters. Repeats this until no check finds a change. The plans hold references
    /// to the state, and no Python code has run since the last check.
    pub(super) fn check<'py>(
        &mut self,
        state: &Bound<'py, PyDict>,
        objects: &[Bound<'py, PyAny>],
        active: &[bool],
        wanted: impl Fn(usize) -> bool,
        touched: &AtomicBool,
        added: &mut Added<'py>,
    ) -> PyResult<()> {
        if active != self.active {
            self.active = active.to_vec();
            self.moved = true;
        }
        // If only the optimizer has references to the state, and the state was not requested since,
        // no code can have changed it.
        let untouched = !touched.swap(false, Ordering::Relaxed);
        let mut trusted = std::mem::take(&mut self.trusted) && untouched;
        if !trusted {
            for plan in &mut self.plans {
                plan.alone = false;
            }
        }
        for _ in 0..ATTEMPTS {
            let (mut clean, mut wants) = (true, Vec::new());
            let mut states = States::new(state);
            for (index, object) in objects.iter().enumerate() {
                if !self.active[index] {
                    continue;
                }
                if !self.check_parameter(index, object)? {
                    clean = false;
                    states.refresh();
                }
                let planned = self.is_planned(index, wanted(index));
                if planned && trusted && self.plans[index].alone {
                    continue;
                }
                let found = states.find(object);
                let entry = match &found {
                    Some(found) => Some(
                        found
                            .cast::<PyDict>()
                            .map_err(|_| not_dict(&self.set.parameters[index].name))?,
                    ),
                    None => None,
                };
                if planned && self.is_current(index, entry) {
                    continue;
                }
                let wants = wanted(index).then_some(&mut wants);
                self.read_state(index, entry, added, wants)?;
                clean = false;
                states.refresh();
            }
            if clean {
                // References: the engine, and `state`.
                self.trusted = references(state.as_ptr()) == 2;
                return Ok(());
            }
            // Python code may have run, which may have changed anything.
            trusted = false;
            if !wants.is_empty() {
                self.add(state, objects, wants, added)?;
            }
        }
        Err(PyRuntimeError::new_err(
            "the parameters or their state change each time that they are looked at",
        ))
    }

    /// Reads the steps and scalars from the state.
    fn read_numbers(&mut self) -> PyResult<()> {
        for (index, plan) in self.plans.iter().enumerate() {
            if !self.active[index] {
                continue;
            }
            let parameter = &mut self.set.parameters[index];
            // SAFETY: `check` found numbers of this type here, and the plan holds their tensors.
            let read = |data: Address| unsafe { data.0.cast::<f64>().read_unaligned() };
            let numbers = parameter.progress.scalars.iter_mut().zip(plan.scalars);
            for (number, data) in numbers {
                if let Some(data) = data {
                    *number = read(data);
                }
            }
            if let Some(data) = plan.step {
                let x = read(data);
                if !(x >= 0.0 && x.is_finite() && x.fract() == 0.0) {
                    return Err(PyValueError::new_err(format!(
                        "step of {:?} must be a whole number >= 0, got {x}",
                        parameter.name
                    )));
                }
                parameter.progress.steps = x as u64;
            }
        }
        Ok(())
    }

    /// Gives new parameters the scalars of the others, if all parameters share them.
    fn share_numbers(&mut self, added: &Added<'_>) {
        if !self.shares_numbers() {
            return;
        }
        let method = &self.set.groups[0].method;
        let name = method.scalars().first().map_or("", |(name, _)| *name);
        let is_new = |index: usize| added.has(index, name);
        let mut old = (0..self.plans.len()).filter(|&index| {
            self.active[index] && !is_new(index) && self.plans[index].scalars[0].is_some()
        });
        let Some(old) = old.next() else { return };
        let scalars = self.set.parameters[old].progress.scalars;
        for (index, parameter) in self.set.parameters.iter_mut().enumerate() {
            if is_new(index) {
                parameter.progress.scalars = scalars;
            }
        }
    }

    /// Returns whether all parameters have the same scalars in their state.
    fn shares_numbers(&self) -> bool {
        let mut groups = self.set.groups.iter();
        groups.any(|group| group.method.sums_globally())
    }

    /// Writes the steps and scalars to the state.
    fn write_numbers(&self) {
        for (index, plan) in self.plans.iter().enumerate() {
            if !self.active[index] {
                continue;
            }
            let progress = &self.set.parameters[index].progress;
            // SAFETY: as in `read_numbers`; with the interpreter attached no other call of this
            // library writes them.
            let write = |data: Address, x| unsafe { data.0.cast::<f64>().write_unaligned(x) };
            for (x, data) in progress.scalars.iter().zip(plan.scalars) {
                if let Some(data) = data {
                    write(data, *x);
                }
            }
            if let Some(data) = plan.step {
                write(data, progress.steps as f64);
            }
        }
    }

    /// Increments the versions of the tensors that were written, so that autograd detects stale
    /// graphs.
    fn bump<'py>(
        &self,
        py: Python<'py>,
        objects: &[Bound<'py, PyAny>],
        grads: &[Option<Bound<'py, PyAny>>],
        arguments: &Arguments<'_, 'py>,
    ) -> PyResult<()> {
        let pairs = objects.iter().zip(grads);
        let written: Vec<_> = pairs.filter_map(|(p, g)| g.as_ref().map(|_| p)).collect();
        self.torch.changed(py, &written)?;
        let mut others: Vec<_> = Vec::new();
        if arguments.zero_grad {
            others.extend(grads.iter().flatten());
        }
        others.extend(arguments.average.iter().flat_map(|(tensors, _)| tensors));
        others.extend(arguments.copy.iter().flatten());
        if self.torch.changed(py, &others).is_err() {
            // Tensors created under inference_mode have no version.
            for other in others {
                let _ = self.torch.changed(py, &[other]);
            }
        }
        Ok(())
    }
}
