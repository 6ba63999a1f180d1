//! One step over tensors.

use std::sync::atomic::{AtomicBool, Ordering};

use fastoptim::step::{self, Local, Options, StepOutcome};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::gradients::{Copies, Signs};
use super::plan::{Place, references};
use super::state::{Added, not_dict};
use super::{States, TensorSet};
use crate::memory::inflight;

/// How often what a step needs may change while it is put right: by code of Python that others have
/// hung into the making of tensors.
const ATTEMPTS: usize = 8;

/// The arguments of one step that are objects of Python.
pub(super) struct Arguments<'a, 'py> {
    pub(super) groups: &'a Bound<'py, PyList>,
    pub(super) state: &'a Bound<'py, PyDict>,
    pub(super) average: Option<(Vec<Bound<'py, PyAny>>, f64)>,
    pub(super) copy: Option<Vec<Bound<'py, PyAny>>>,
    pub(super) zero_grad: bool,
    /// Whether somebody has asked for the state since this was last cleared.
    pub(super) touched: &'a AtomicBool,
}

impl TensorSet {
    /// One step over all groups: whether it was applied, and the norm that clipping used.
    pub(super) fn step(
        &mut self,
        py: Python<'_>,
        arguments: &Arguments<'_, '_>,
        options: &Options,
    ) -> PyResult<(bool, Option<f64>)> {
        if self.set.averaged {
            return Err(PyRuntimeError::new_err(
                "the parameters are at their average for evaluation: call train() before step()",
            ));
        }
        self.read_groups(arguments.groups)?;
        let objects = self.parameters(arguments.groups)?;
        let mut grads = Vec::with_capacity(objects.len());
        for object in &objects {
            let grad = object.getattr(self.keys.grad.bind(py))?;
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
        let follows = arguments.average.is_some() || arguments.copy.is_some();
        let (shares, mut states) = (self.shares_numbers(), States::new(arguments.state));
        let mut active = Vec::with_capacity(objects.len());
        for (object, grad) in objects.iter().zip(grads) {
            // The numbers that a step finds over all parameters are those of all parameters.
            let written = grad.is_some() || follows;
            active.push(written || (shares && states.find(object).is_some()));
        }
        let wanted = |index: usize| grads[index].is_some();
        let mut signs = Signs::default();
        let (mut copies, outputs, gradients) = loop {
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
            // Where code of Python may have run meanwhile, all is checked anew.
            if !signs.asked() || !self.torch.has_modes(py)? {
                break (copies, outputs, gradients);
            }
        };
        let [written, read] = self.disjoint(&gradients, &outputs, &mut copies)?;
        self.read_numbers()?;
        self.share_numbers(added);
        copies.staged.extend(self.stage());
        let guard = inflight::register(written, read)?;

        // SAFETY: `check` found every parameter of this step and its state as the set has them, and
        // `objects`, `grads` and the plans hold them; what is written shares no memory with anything else
        // of this step, as was checked, and `guard` keeps other calls from all of it.
        let groups = unsafe { self.set.group_segments(&gradients, &outputs) };
        let staged = &mut copies.staged;
        let result = py.detach(|| {
            for copy in staged.iter_mut().filter(|copy| copy.read) {
                // SAFETY: the tensors are held, and `guard` keeps other calls from their memory.
                unsafe { copy.gather() };
            }
            let result = step::run(groups, options, &Local);
            if result.as_ref().is_ok_and(|outcome| outcome.applied) {
                for copy in staged.iter_mut().filter(|copy| copy.written) {
                    // SAFETY: as above, and what is written is nobody else's.
                    unsafe { copy.scatter() };
                }
            }
            result
        });
        drop(guard);
        let outcome = result.map_err(|error| self.set.failure(error))?;
        if outcome.applied {
            self.set.write_back(&gradients, &outcome);
            self.write_numbers();
        }
        Ok(outcome)
    }

    /// Checks the parameters that are `active` and their state, and adds what it lacks to the state
    /// of those that are `wanted`; until nothing has changed from the first check to the last. The
    /// plans hold the state. No code of Python has run since it was checked.
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
        // Where only the optimizer has the state, and nobody has asked for it since, nobody can have
        // changed it: it is not looked at.
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
                // The engine has it, and `state` here.
                self.trusted = references(state.as_ptr()) == 2;
                return Ok(());
            }
            // Code of Python may have run, which may have changed anything.
            trusted = false;
            if !wants.is_empty() {
                self.add(state, objects, wants, added)?;
            }
        }
        Err(PyRuntimeError::new_err(
            "the parameters or their state change each time that they are looked at",
        ))
    }

    /// Takes the steps and the numbers out of the state.
    fn read_numbers(&mut self) -> PyResult<()> {
        for (index, plan) in self.plans.iter().enumerate() {
            if !self.active[index] {
                continue;
            }
            let parameter = &mut self.set.parameters[index];
            for item in &plan.items {
                let (Place::Step | Place::Scalar(_), Some(form)) = (item.place, &item.form) else {
                    continue;
                };
                // SAFETY: `check` found a number of this type here, in a tensor that is held.
                let x = unsafe { form.data.0.cast::<f64>().read_unaligned() };
                match item.place {
                    Place::Scalar(j) => parameter.progress.scalars[j] = x,
                    _ => {
                        if !(x >= 0.0 && x.is_finite() && x.fract() == 0.0) {
                            return Err(PyValueError::new_err(format!(
                                "step of {:?} must be a whole number >= 0, got {x}",
                                parameter.name
                            )));
                        }
                        parameter.progress.steps = x as u64;
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives parameters that are new the numbers of the others, where all share them.
    fn share_numbers(&mut self, added: &Added<'_>) {
        if !self.shares_numbers() {
            return;
        }
        let method = &self.set.groups[0].method;
        let name = method.scalars().first().map_or("", |(name, _)| *name);
        let is_new = |index: usize| added.has(index, name);
        let mut old = (0..self.plans.len()).filter(|&index| {
            let mut items = self.plans[index].items.iter();
            self.active[index] && !is_new(index) && items.any(|item| item.place == Place::Scalar(0))
        });
        let Some(old) = old.next() else { return };
        let scalars = self.set.parameters[old].progress.scalars;
        for (index, parameter) in self.set.parameters.iter_mut().enumerate() {
            if is_new(index) {
                parameter.progress.scalars = scalars;
            }
        }
    }

    /// Whether all parameters have the same numbers in their state.
    fn shares_numbers(&self) -> bool {
        let mut groups = self.set.groups.iter();
        groups.any(|group| group.method.sums_globally())
    }

    /// Puts the steps and the numbers back into the state.
    fn write_numbers(&self) {
        for (index, plan) in self.plans.iter().enumerate() {
            if !self.active[index] {
                continue;
            }
            let progress = &self.set.parameters[index].progress;
            for item in &plan.items {
                let Some(form) = &item.form else { continue };
                let x = match item.place {
                    Place::Step => progress.steps as f64,
                    Place::Scalar(j) => progress.scalars[j],
                    _ => continue,
                };
                // SAFETY: as in `read_numbers`, and the interpreter is attached: no other call of this
                // library writes it.
                unsafe { form.data.0.cast::<f64>().write_unaligned(x) };
            }
        }
    }

    /// Raises the version of the tensors that were written, by which autograd notices that it has
    /// saved one of them.
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
            // Those that were made under inference_mode have no version.
            for other in others {
                let _ = self.torch.changed(py, &[other]);
            }
        }
        Ok(())
    }
}
