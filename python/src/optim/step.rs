//! One step: its arguments, checked, and its segments.

use std::ops::Range;

use fastoptim::error::Error;
use fastoptim::numeric::float::Float;
use fastoptim::optim::schedule_free::average_weight;
use fastoptim::step::{
    self, FrozenParameter, GroupSegments, Local, Nonfinite, Options, Regularization, Segment,
    StepOutcome,
};
use fastoptim::storage::Rounding;
use fastoptim::storage::view::StorageView;
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
use crate::memory::numpy::{Dtype, Memory};
use crate::memory::view;
use crate::optim::group::{Group, Specs};
use crate::optim::parameter::Parameter;

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

        // SAFETY: `gradients` checked every parameter that has a gradient, and all parameters were
        // checked if there are outputs. Written memory was checked to share nothing with other
        // memory of this step, and `guard` excludes other calls from all of it. The gradients of
        // parts were checked in the same way, and only the exchange knows their memory.
        let groups = unsafe { self.group_segments(parts.as_ref().unwrap_or(&gradients), &outputs) };
        let result = if let Some(exchange) = exchange {
            let ranks = exchange.ranks();
            let result = py.detach(|| step::run(groups, options, &ranks));
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
            py.detach(|| step::run(groups, options, &Local))
        };
        drop(guard);
        let outcome = result.map_err(|error| {
            self.rollback(&added);
            self.failure(error)
        })?;
        if outcome.applied {
            self.write_back(&gradients, &outcome);
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

    /// Counts a step that was applied.
    pub(super) fn write_back(&mut self, gradients: &Gradients<'_>, outcome: &StepOutcome) {
        let mut specs = Specs::new(&self.groups);
        for (parameter, gradient) in self.parameters.iter_mut().zip(&gradients.arrays) {
            let method = &self.groups[parameter.group].method;
            if gradient.is_none() {
                outcome.write_back(method, None, &mut parameter.progress);
                continue;
            }
            let specs = specs.of(parameter.group, parameter.layout.shape.len());
            let context = parameter.context(specs);
            outcome.write_back(method, Some(context), &mut parameter.progress);
            if !parameter.slots_of(specs).all(|slot| slot.started) {
                for slot in &mut parameter.slots {
                    slot.started |= specs.iter().any(|spec| slot.is_named(spec.name));
                }
            }
        }
        self.steps = self.steps.saturating_add(1);
    }

    /// Returns the segments of every group.
    ///
    /// # Safety
    /// `check` has passed for every parameter that has a gradient, and for all parameters if there
    /// are outputs. `gradients` and `outputs` belong to these parameters. While the result exists,
    /// no other code accesses the memory of parameters, state, outputs and written gradients, or
    /// writes that of other gradients.
    pub(super) unsafe fn group_segments<'a>(
        &'a self,
        gradients: &'a Gradients<'_>,
        outputs: &'a Outputs<'_>,
    ) -> Vec<GroupSegments<'a>> {
        // Groups are added one after the other, so the parameters of each are consecutive.
        let mut end = 0;
        let segments = |(index, group): (usize, &'a Group)| {
            let (start, mut doubles) = (end, 0);
            let members = self.parameters[start..].iter();
            for parameter in members.take_while(|parameter| parameter.group == index) {
                end += 1;
                doubles += usize::from(parameter.layout.dtype.arithmetic() == Dtype::F64);
            }
            let singles = end - start - doubles;
            let mut found = GroupSegments::new(&group.method);
            found.maximize = group.maximize;
            found.regularization = group.regularization;
            // SAFETY: `segments` has the contract of this function.
            unsafe {
                (found.single, found.frozen_single) =
                    self.segments(start..end, (Dtype::F32, singles), gradients, outputs);
                (found.double, found.frozen_double) =
                    self.segments(start..end, (Dtype::F64, doubles), gradients, outputs);
            }
            found
        };
        self.groups.iter().enumerate().map(segments).collect()
    }

    /// Returns the segments of those of a group's parameters that have one type of computation, of
    /// which the number is given, and the parameters without a gradient that have outputs.
    ///
    /// # Safety
    /// As for `group_segments`.
    unsafe fn segments<'a, T: Float>(
        &'a self,
        parameters: Range<usize>,
        (arithmetic, count): (Dtype, usize),
        gradients: &'a Gradients<'_>,
        outputs: &'a Outputs<'_>,
    ) -> (Vec<Segment<'a, T>>, Vec<FrozenParameter<'a, T>>) {
        let members = &self.parameters[parameters.clone()];
        let Some(Parameter { group, .. }) = members.first().filter(|_| count > 0) else {
            return (Vec::new(), Vec::new());
        };
        let group = &self.groups[*group];
        let (mut segments, mut frozen) = (Vec::with_capacity(count), Vec::new());
        let mut slabs: Vec<usize> = Vec::new();
        let mut specs = Specs::new(&self.groups);
        let iterate = group.method.averaging().map(average_weight);
        let pairs = members.iter().zip(&gradients.arrays[parameters.clone()]);
        for (index, (parameter, g)) in parameters.zip(pairs) {
            let layout = &parameter.layout;
            if layout.dtype.arithmetic() != arithmetic {
                continue;
            }
            let step = parameter.progress.steps.saturating_add(1);
            let start = parameter.start();
            let rounding = |buffer| move || self.storage.rounding(index, buffer, step).skip(start);
            let Some(g) = g else {
                if outputs.is_empty() {
                    continue;
                }
                let z = self.averaging(parameter).map(|(z, _)| z);
                // SAFETY: there are outputs, so `check` has passed for every parameter. By this
                // function's contract no other code accesses the memory.
                frozen.push(unsafe {
                    FrozenParameter {
                        p: parameter.view(|| Rounding::Nearest),
                        epilogue: outputs.epilogue(index, parameter, z.and(iterate)),
                        z: z.map(|z| z.view(|| Rounding::Nearest)),
                    }
                });
                continue;
            };
            let specs = specs.of(parameter.group, layout.shape.len());
            let slots = || parameter.slots_of(specs);
            // SAFETY: there is a gradient, so `check` has passed for the parameter. By this
            // function's contract no other code accesses the memory.
            let mut segment = unsafe {
                let state = slots().zip(1..);
                Segment::new(
                    parameter.view(rounding(0)),
                    gradient(g, outputs.clear_gradients),
                    parameter.part_shape(),
                    state.map(|(slot, buffer)| slot.view(rounding(buffer))),
                    parameter.context(specs),
                )
                .numbered(index)
            };
            if parameter.part.is_some() {
                segment = segment.part_of(start, layout.len);
            }
            if !outputs.is_empty() {
                // SAFETY: by this function's contract `outputs` outlives `'a`, and no other code
                // accesses its memory.
                segment =
                    segment.with_epilogue(unsafe { outputs.epilogue(index, parameter, iterate) });
            }
            if !gradients.flat {
                segments.push(segment);
                continue;
            }
            let same = slots()
                .map(|slot| slot.numbers.allocation())
                .eq(slabs.iter().copied());
            slabs.clear();
            slabs.extend(slots().map(|slot| slot.numbers.allocation()));
            segments.push(if same && !segments.is_empty() {
                // SAFETY: gradients are flat only if `add_group` found the parameters to be pieces
                // of one buffer. Then the gradients are pieces of one array, and the condition
                // above found the state arrays to be pieces of the same slabs as those before. The
                // pointers are valid for whole allocations, because none comes from a slice.
                unsafe { segment.follows() }
            } else {
                segment
            });
        }
        (segments, frozen)
    }
}

/// Returns the view of a gradient for a rule.
///
/// # Safety
/// No other code writes the gradient while the result exists, or accesses it if it is `written`.
unsafe fn gradient<'a, T: Float>(memory: &'a Memory<'_>, written: bool) -> StorageView<'a, T> {
    let &Memory {
        data, len, dtype, ..
    } = memory;
    // SAFETY: `matching` found `len` aligned elements of this dtype, and `memory` holds their array
    // for `'a`. Exclusion of other accesses is this function's contract.
    unsafe {
        if written {
            view::written(dtype, data, len, || Rounding::Nearest)
        } else {
            view::read(dtype, data, len)
        }
    }
}
