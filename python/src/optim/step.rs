//! One step: its options, checked, and the work that it is.

use std::ops::Range;

use fastoptim::numeric::float::Float;
use fastoptim::numeric::scale::ScaleFactor;
use fastoptim::ops::clip;
use fastoptim::ops::penalty::Penalty;
use fastoptim::optim::StateSpec;
use fastoptim::storage::Rounding;
use fastoptim::storage::view::StorageView;
use fastoptim::sweep::frozen::FrozenParameter;
use fastoptim::sweep::norm;
use fastoptim::sweep::prologue::Prologue;
use fastoptim::sweep::segment::{MAX_SCALARS, Segment, StepContext};
use fastoptim::sweep::task::{self, Work};
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

use super::engine::Inner;
use super::gradients::Gradients;
use super::outputs::Targets;
use crate::memory::numpy::{Dtype, Memory};
use crate::memory::view;
use crate::optim::group::Group;
use crate::optim::parameter::Parameter;

/// What becomes of a step whose gradients are not all finite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Propagate,
    Skip,
    Raise,
}

/// A number of Python, which may be an integer beyond all of `f64`.
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

/// The options of one step that are numbers, checked.
pub(super) struct Options {
    scale: ScaleFactor,
    max_norm: Option<f64>,
    clip_value: f64,
    pub(super) nonfinite: Policy,
    regularizer: Penalty,
}

impl Options {
    pub(super) fn new(
        loss_scale: f64,
        max_norm: Option<f64>,
        clip_value: Option<f64>,
        nonfinite: &str,
        regularizer: Option<(f64, f64)>,
    ) -> PyResult<Self> {
        let refuse = |name: &str, range: &str, x: f64| {
            Err(PyValueError::new_err(format!(
                "{name} must be {range}, got {x}"
            )))
        };
        let nonfinite = match nonfinite {
            "propagate" => Policy::Propagate,
            "skip" => Policy::Skip,
            "raise" => Policy::Raise,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "nonfinite must be 'propagate', 'skip' or 'raise', got {nonfinite:?}"
                )));
            }
        };
        if !(loss_scale > 0.0 && loss_scale.is_finite()) {
            return refuse("loss_scale", "finite and > 0", loss_scale);
        }
        match (max_norm, clip_value) {
            (Some(x), _) if x.is_nan() || x <= 0.0 => return refuse("max_norm", "> 0", x),
            (_, Some(x)) if x.is_nan() || x < 0.0 => return refuse("clip_value", ">= 0", x),
            _ => {}
        }
        let (l1, l2) = regularizer.unwrap_or_default();
        Ok(Self {
            scale: ScaleFactor::quotient(1.0, loss_scale),
            max_norm,
            clip_value: clip_value.unwrap_or(f64::INFINITY),
            nonfinite,
            regularizer: Penalty { l1, l2 },
        })
    }

    /// What is done to the gradients of a group, but for clipping by norm.
    fn prologue(&self, group: &Group) -> Prologue {
        Prologue {
            scale: if group.maximize {
                self.scale.negated()
            } else {
                self.scale
            },
            regularizer: self.regularizer,
            clip_value: self.clip_value,
            ..Prologue::default()
        }
    }
}

/// How far from the iterate where gradients are taken towards `z` the averaged one lies.
pub(super) fn towards_average(beta: f64) -> f64 {
    1.0 - 1.0 / beta
}

/// The parameters of one group in one step, by what they are computed in.
#[derive(Default)]
pub(super) struct Members<'a> {
    single: Vec<Segment<'a, f32>>,
    double: Vec<Segment<'a, f64>>,
    idle_single: Vec<FrozenParameter<'a, f32>>,
    idle_double: Vec<FrozenParameter<'a, f64>>,
}

/// What one step found.
pub(super) struct Found {
    /// The norm, if one was asked for.
    pub(super) norm: Option<f64>,
    /// The first parameter whose gradient is not finite, where that ended the step.
    pub(super) infinite: Option<usize>,
    /// The numbers in the state, where the step itself has found them.
    pub(super) scalars: Option<[f64; MAX_SCALARS]>,
}

/// The norm, if one is asked for, and the first parameter whose gradient is not finite, if that
/// matters.
fn measure(
    groups: &[Group],
    members: &[Members<'_>],
    options: &Options,
) -> (Option<f64>, Option<usize>) {
    let check = options.nonfinite != Policy::Propagate;
    if !check && options.max_norm.is_none() {
        return (None, None);
    }
    let pairs = groups.iter().zip(members);
    let read: Vec<_> = pairs
        .map(|(group, members)| norm::Group {
            single: &members.single,
            double: &members.double,
            prologue: options.prologue(group),
        })
        .collect();
    let norm = norm::norm(&read, check);
    // The norm of finite gradients may be too large for a number, and that of gradients in single
    // precision is not, where unscaling makes them infinite.
    let in_doubt = norm.is_nan() || norm > f64::from(f32::MAX);
    let infinite = if check && in_doubt {
        norm::first_infinite(&read)
    } else {
        None
    };
    (options.max_norm.map(|_| norm), infinite)
}

/// The step itself, without the interpreter: the norm where one is needed, then the sweep.
pub(super) fn execute(groups: &[Group], members: Vec<Members<'_>>, options: &Options) -> Found {
    let (norm, infinite) = measure(groups, &members, options);
    if infinite.is_some() {
        return Found {
            norm,
            infinite,
            scalars: None,
        };
    }
    let coefficient = match (norm, options.max_norm) {
        (Some(norm), Some(max_norm)) => clip::coefficient(norm, max_norm),
        _ => ScaleFactor::ONE,
    };
    let mut works: Vec<Work<'_>> = Vec::with_capacity(groups.len());
    for (group, members) in groups.iter().zip(members) {
        let prologue = Prologue {
            coefficient,
            ..options.prologue(group)
        };
        if !members.single.is_empty() {
            works.push(group.method.plan(members.single, prologue));
        }
        if !members.double.is_empty() {
            works.push(group.method.plan(members.double, prologue));
        }
        if !members.idle_single.is_empty() {
            works.push(Work::following(members.idle_single));
        }
        if !members.idle_double.is_empty() {
            works.push(Work::following(members.idle_double));
        }
    }
    let scalars = task::run(works).into_iter().flatten().next();
    Found {
        norm,
        infinite: None,
        scalars,
    }
}

impl Inner {
    /// The context of a parameter in this step.
    pub(super) fn context(&self, parameter: &Parameter) -> StepContext {
        let specs = self.groups[parameter.group]
            .method
            .state(parameter.layout.shape.len());
        let started = |spec: &StateSpec| {
            let slot = parameter.slot(spec.name);
            slot.is_some_and(|slot| slot.started)
        };
        StepContext {
            step: parameter.step.saturating_add(1),
            fresh: !specs.iter().any(started),
            scalars: parameter.scalars,
        }
    }

    /// The parameters of every group as the core works on them.
    ///
    /// # Safety
    /// `check` has passed for every parameter that has a gradient, and for all of them where there
    /// are targets. `gradients` and `targets` are of these parameters, and nobody else has the
    /// memory of all of them and the state, gradients that are only read excepted, while the result
    /// lives.
    pub(super) unsafe fn members<'a>(
        &'a self,
        gradients: &'a Gradients<'_>,
        targets: &'a Targets<'_>,
    ) -> Vec<Members<'a>> {
        // Groups are added one after the other, so the parameters of each are neighbours.
        let mut end = 0;
        let member = |group| {
            let start = end;
            end += self.parameters[start..]
                .iter()
                .take_while(|parameter| parameter.group == group)
                .count();
            let mut members = Members::default();
            // SAFETY: as this function's contract has it, of which `segments` asks nothing more.
            unsafe {
                (members.single, members.idle_single) =
                    self.segments(start..end, Dtype::F32, gradients, targets);
                (members.double, members.idle_double) =
                    self.segments(start..end, Dtype::F64, gradients, targets);
            }
            members
        };
        (0..self.groups.len()).map(member).collect()
    }

    /// The segments of a group's parameters that are computed in one type, and those without
    /// gradient that something follows.
    ///
    /// # Safety
    /// As `members`.
    unsafe fn segments<'a, T: Float>(
        &'a self,
        parameters: Range<usize>,
        arithmetic: Dtype,
        gradients: &'a Gradients<'_>,
        targets: &'a Targets<'_>,
    ) -> (Vec<Segment<'a, T>>, Vec<FrozenParameter<'a, T>>) {
        let belongs = |p: &Parameter| p.layout.dtype.arithmetic() == arithmetic;
        let members = &self.parameters[parameters.clone()];
        let count = members.iter().filter(|p| belongs(p)).count();
        let Some(Parameter { group, .. }) = members.first().filter(|_| count > 0) else {
            return (Vec::new(), Vec::new());
        };
        let group = &self.groups[*group];
        let (mut segments, mut idle) = (Vec::with_capacity(count), Vec::new());
        let mut slabs: Vec<usize> = Vec::new();
        let iterate = group.method.averaging().map(towards_average);
        let pairs = members.iter().zip(&gradients.arrays[parameters.clone()]);
        for (index, (parameter, g)) in parameters.zip(pairs) {
            let layout = &parameter.layout;
            if !belongs(parameter) {
                continue;
            }
            let step = parameter.step.saturating_add(1);
            let rounding = |buffer| move || self.storage.rounding(index, buffer, step);
            let Some(g) = g else {
                if targets.is_nothing() {
                    continue;
                }
                let z = parameter
                    .slot("z")
                    .filter(|z| z.started && iterate.is_some());
                // SAFETY: there are targets, so `check` has passed for every parameter; that nobody
                // else has the memory is this function's contract.
                idle.push(unsafe {
                    FrozenParameter {
                        p: parameter.view(|| Rounding::Nearest),
                        epilogue: targets.epilogue(index, z.and(iterate)),
                        z: z.map(|z| z.view(|| Rounding::Nearest)),
                    }
                });
                continue;
            };
            let specs = group.method.state(layout.shape.len());
            let slots = || specs.iter().filter_map(|spec| parameter.slot(spec.name));
            // SAFETY: there is a gradient, so `check` has passed for the parameter; that nobody
            // else has the memory is this function's contract.
            let mut segment = unsafe {
                let state = slots().zip(1..);
                Segment::new(
                    parameter.view(rounding(0)),
                    gradient(g, targets.clear_gradients),
                    &layout.shape,
                    state.map(|(slot, buffer)| slot.view(rounding(buffer))),
                    self.context(parameter),
                )
                .numbered(index)
            };
            if !targets.is_nothing() {
                // SAFETY: `targets` outlives `'a`, and nobody else has its memory, by this
                // function's contract.
                segment = segment.with_epilogue(unsafe { targets.epilogue(index, iterate) });
            }
            let same = slots()
                .map(|slot| slot.numbers.allocation())
                .eq(slabs.iter().copied());
            slabs.clear();
            slabs.extend(slots().map(|slot| slot.numbers.allocation()));
            segments.push(if gradients.flat && same && !segments.is_empty() {
                // SAFETY: gradients are flat only where `add_group` found the parameters to be
                // pieces of one buffer; then the gradients are pieces of one array, and the state
                // arrays were just seen to be pieces of the same slabs as those before. The pointers
                // reach over all of an allocation, as no slice is made on the way.
                unsafe { segment.follows() }
            } else {
                segment
            });
        }
        (segments, idle)
    }
}

/// A gradient as a rule sees it.
///
/// # Safety
/// Nobody writes it while the result lives; nobody else has it where it is `written`.
unsafe fn gradient<'a, T: Float>(memory: &'a Memory<'_>, written: bool) -> StorageView<'a, T> {
    let &Memory {
        data, len, dtype, ..
    } = memory;
    // SAFETY: `matching` found `len` elements of this dtype, aligned, and `memory` holds their array
    // for `'a`; who else has them is this function's contract.
    unsafe {
        if written {
            view::written(dtype, data, len, || Rounding::Nearest)
        } else {
            view::read(dtype, data, len)
        }
    }
}
