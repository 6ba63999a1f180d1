//! One step of an optimizer of NumPy arrays, and what the steps of tensors have in common with it.

use std::mem;

use fastoptim::error::Error;
use fastoptim::exec::environment;
use fastoptim::step::{self, Local, Nonfinite, Options, Regularization, StepOutcome};
use pyo3::exceptions::{PyFloatingPointError, PyOverflowError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::exchange::Exchange;
use super::gradients::Gradients;
use super::outputs::Outputs;
use super::parameter_set::ParameterSet;
use crate::error::to_py;
use crate::memory::inflight::{self, Accessed};
use crate::memory::items::Items;
use crate::optim::group::Specs;
use crate::runtime::threads::detached;

/// Checks the numbers and the words among the options of a step.
pub(super) fn options(
    loss_scale: f64,
    max_norm: Option<f64>,
    clip_value: Option<f64>,
    nonfinite: &str,
    regularization: Regularization,
) -> PyResult<Options> {
    let options = Options {
        loss_scale,
        regularization,
        clip_value,
        max_norm,
        nonfinite: Nonfinite::from_name(nonfinite).map_err(to_py)?,
    };
    options.check().map_err(to_py)?;
    Ok(options)
}

/// Extracts a number. A Python integer may exceed the range of `f64`.
pub(super) fn real<'py, T>(object: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    object.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            PyValueError::new_err("too large for a float")
        } else {
            error
        }
    })
}

/// The arguments of one step that are Python objects.
pub(super) struct Arguments<'a, 'py> {
    pub(super) groups: &'a Bound<'py, PyList>,
    pub(super) grads: &'a Bound<'py, PyAny>,
    pub(super) average: Option<(Items<Bound<'py, PyAny>>, f64)>,
    pub(super) copy: Option<Items<Bound<'py, PyAny>>>,
    pub(super) zero_grad: bool,
    pub(super) exchange: Option<Exchange<'py>>,
}

impl ParameterSet {
    /// Refuses a step while the parameters are at their averaged iterate.
    pub(super) fn check_mode(&self) -> PyResult<()> {
        if self.averaged {
            return Err(PyRuntimeError::new_err(
                "the parameters are at their average for evaluation: call train() before step()",
            ));
        }
        Ok(())
    }

    /// Runs one step over all groups. Returns whether it was applied, and the norm for clipping.
    pub(super) fn step(
        &mut self,
        py: Python<'_>,
        arguments: &Arguments<'_, '_>,
        options: &Options,
    ) -> PyResult<(bool, Option<f64>)> {
        self.check_mode()?;
        self.read_groups(arguments.groups)?;
        let gradients = self.gradients(arguments.grads)?;
        let outputs = Outputs::new(
            &self.parameters,
            arguments.average.as_ref(),
            arguments.copy.as_ref().map(|arrays| arrays.as_slice()),
            arguments.zero_grad,
        )?;
        let (written, read) = self.accessed(py, &gradients, &outputs)?;
        let guard = inflight::register(written, read)?;
        // After all other checks, so that only the allocation itself can still fail. No other code
        // can access the new arrays yet.
        let added = self.allocate(py)?;

        let exchange = arguments.exchange.as_ref();
        let parts = exchange.map(|exchange| {
            let parts = exchange.begin(arguments.grads)?;
            let parts = self.part_gradients(&parts, &gradients)?;
            self.accessed(py, &parts, &outputs)?;
            // Python code has run since the parameters were checked.
            let mut parameters = self.parameters.iter();
            parameters.try_for_each(|it| it.check(py))?;
            Ok::<_, PyErr>(parts)
        });
        let parts = parts.transpose().inspect_err(|_| self.rollback(&added))?;
        let stepped = parts.as_ref().unwrap_or(&gradients);
        let kept = mem::take(&mut self.kept);

        // SAFETY: `gradients` checked every parameter that has a gradient, and all parameters were
        // checked if there are outputs. Written memory was checked to share nothing with other
        // memory of this step, and `guard` excludes other calls from all of it. The gradients of
        // parts were checked in the same way, and only the exchange knows their memory.
        let mut segments = unsafe { self.current_segments(kept, stepped, &outputs) };
        let groups = &mut segments.groups;
        let result = if let Some(exchange) = exchange {
            let ranks = exchange.ranks();
            let result = detached(py, || step::run(groups, options, &ranks));
            ranks.into_result()?;
            if result.as_ref().is_ok_and(|outcome| outcome.applied) {
                exchange.finish()?;
                if arguments.zero_grad {
                    // SAFETY: the gradients are writable, `gradients` holds their arrays, and
                    // `guard` excludes other calls.
                    unsafe { gradients.clear(py) };
                }
            }
            result
        } else {
            detached(py, || step::run(groups, options, &Local))
        };
        drop(guard);
        let started = segments.is_kept();
        let applied = result.as_ref().is_ok_and(|outcome| outcome.applied);
        if applied || started {
            self.kept = self.keep(segments, stepped);
        }
        let outcome = result.map_err(|error| {
            self.rollback(&added);
            self.failure(error)
        })?;
        if outcome.applied {
            self.write_back(&gradients, &outcome, started);
        } else {
            self.rollback(&added);
        }
        Ok((outcome.applied, outcome.norm))
    }

    /// Returns all memory that a step writes and reads, if written memory is not shared.
    fn accessed(
        &mut self,
        py: Python<'_>,
        gradients: &Gradients<'_>,
        outputs: &Outputs<'_>,
    ) -> PyResult<Accessed> {
        let written = self.written();
        if outputs.is_empty() {
            let read = self.read(gradients, &written)?;
            return Ok((written, read));
        }
        if outputs.clear_gradients {
            self.require_writable(gradients)?;
        }
        for parameter in &self.parameters {
            parameter.check(py)?;
        }
        outputs.disjoint(&written, gradients, [&[], &[]])
    }

    /// Converts an error of a step of the core.
    pub(super) fn failure(&self, error: Error) -> PyErr {
        match error {
            Error::NotFinite(Some(index)) => PyFloatingPointError::new_err(format!(
                "grads[{:?}] has elements that are not finite",
                self.parameters[index].name
            )),
            error => to_py(error),
        }
    }

    /// Counts a step that was applied. `started` says that all state arrays were written before.
    pub(super) fn write_back(
        &mut self,
        gradients: &Gradients<'_>,
        outcome: &StepOutcome,
        started: bool,
    ) {
        environment::standard(|| {
            let mut specs = Specs::new(&self.groups);
            for (parameter, gradient) in self.parameters.iter_mut().zip(&gradients.arrays) {
                let method = &self.groups[parameter.group].method;
                if gradient.is_none() {
                    outcome.write_back(method, None, &mut parameter.progress);
                    continue;
                }
                let specs = specs.of(parameter.group, parameter.layout.shape.len());
                if started {
                    let context = parameter.progress.context(specs.is_empty());
                    outcome.write_back(method, Some(context), &mut parameter.progress);
                    continue;
                }
                let context = parameter.context(specs);
                outcome.write_back(method, Some(context), &mut parameter.progress);
                if !parameter.slots_of(specs).all(|slot| slot.started) {
                    for slot in &mut parameter.slots {
                        slot.started |= specs.iter().any(|spec| slot.is_named(spec.name));
                    }
                }
            }
        });
        self.steps = self.steps.saturating_add(1);
    }
}
