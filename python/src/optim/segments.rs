//! The segments of a step: the memory of parameters, gradients and state as the core takes it.

use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use fastoptim::numeric::float::Float;
use fastoptim::optim::StateSpec;
use fastoptim::optim::schedule_free::average_weight;
use fastoptim::step::{FrozenParameter, GroupSegments, Segment, StepContext};
use fastoptim::storage::Rounding;
use fastoptim::storage::view::StorageView;

use super::gradients::Gradients;
use super::group::{Group, Specs};
use super::outputs::Outputs;
use super::parameter::Parameter;
use super::parameter_set::ParameterSet;
use crate::memory::inflight::Ranges;
use crate::memory::numpy::{Dtype, Memory};
use crate::memory::view;

/// The segments of a step, kept for the next one. Most steps differ from the one before only in the
/// addresses of the gradients and in the step count. AdamW on 1000 arrays of 1 Ki elements, two
/// threads of Zen 4: 322 us with new segments in each step, 254 with kept ones.
#[derive(Default)]
pub(super) struct Kept {
    /// The memory that a step may write. Each change of it, or of the layout of a parameter or a
    /// state array, gives another allocation before the next step uses the segments.
    written: Option<Ranges>,
    /// The state arrays of each segment, in the order of the parameters.
    specs: Vec<&'static [StateSpec]>,
    groups: Vec<Pair<'static>>,
}

/// The segments of a group, computed in single and in double precision.
type Pair<'a> = (Vec<Segment<'a, f32>>, Vec<Segment<'a, f64>>);

/// The segments of this step.
pub(super) struct Current<'a> {
    pub(super) groups: Vec<GroupSegments<'a>>,
    /// The state arrays of each segment, if the segments were kept.
    kept: Option<Vec<&'static [StateSpec]>>,
}

impl Current<'_> {
    /// Returns whether the segments were kept. Then all state arrays have been written before.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }
}

impl ParameterSet {
    /// Returns the segments of every group: the kept ones if these are of the same memory, or else
    /// new ones.
    ///
    /// # Safety
    /// As for [`group_segments`](Self::group_segments).
    pub(super) unsafe fn current_segments<'a>(
        &'a self,
        kept: Kept,
        gradients: &'a Gradients<'_>,
        outputs: &'a Outputs<'_>,
    ) -> Current<'a> {
        // SAFETY: by this function's contract.
        unsafe {
            let renewed = outputs.is_empty().then(|| self.renew(kept, gradients));
            renewed.flatten().unwrap_or_else(|| Current {
                groups: self.group_segments(gradients, outputs),
                kept: None,
            })
        }
    }

    /// Gives the kept segments the gradients and the contexts of this step, if they are segments of
    /// the same parameters and state arrays.
    ///
    /// # Safety
    /// As for [`group_segments`](Self::group_segments), without outputs.
    unsafe fn renew<'a>(&'a self, kept: Kept, gradients: &'a Gradients<'_>) -> Option<Current<'a>> {
        let mut groups: Vec<Pair<'a>> = kept.groups;
        let same = Arc::ptr_eq(self.written.get()?, &kept.written?);
        if !same || gradients.flat || groups.len() != self.groups.len() {
            return None;
        }
        let pairs = groups.iter_mut();
        let mut next: Vec<_> = pairs.map(|(a, b)| (a.iter_mut(), b.iter_mut())).collect();
        let (mut known, mut specs) = (kept.specs.iter(), Specs::new(&self.groups));
        let pairs = self.parameters.iter().zip(&gradients.arrays);
        for (index, (parameter, g)) in pairs.enumerate() {
            let Some(g) = g else { continue };
            let specs = specs.of(parameter.group, parameter.layout.shape.len());
            let context = parameter.progress.context(specs.is_empty());
            let (single, double) = &mut next[parameter.group];
            // SAFETY: by this function's contract.
            let renewed = unsafe {
                match parameter.layout.dtype.arithmetic() {
                    Dtype::F64 => renew(double.next(), index, gradient(g, false), context),
                    _ => renew(single.next(), index, gradient(g, false), context),
                }
            };
            if !renewed || !known.next().is_some_and(|known| ptr::eq(*known, specs)) {
                return None;
            }
        }
        if known.next().is_some() {
            return None;
        }
        let with_method = |((single, double), group): (Pair<'a>, &'a Group)| GroupSegments {
            single,
            double,
            ..empty(group)
        };
        Some(Current {
            groups: groups
                .into_iter()
                .zip(&self.groups)
                .map(with_method)
                .collect(),
            kept: Some(kept.specs),
        })
    }

    /// Returns the segments for the next step, after a step that was applied or that had kept them.
    pub(super) fn keep(&self, current: Current<'_>, gradients: &Gradients<'_>) -> Kept {
        let Current { groups, kept } = current;
        // Segments of encoded arrays contain the noise of a step, flat ones have been merged, and
        // those with outputs contain their memory.
        let bare = |group: &GroupSegments<'_>| {
            let bare = group.single.iter().all(Segment::is_bare);
            bare && group.double.iter().all(Segment::is_bare)
        };
        let fit = || !gradients.flat && self.parts.is_none() && groups.iter().all(bare);
        let Some(written) = self.written.get().filter(|_| kept.is_some() || fit()) else {
            return Kept::default();
        };
        let all_specs = || {
            let mut specs = Specs::new(&self.groups);
            let pairs = self.parameters.iter().zip(&gradients.arrays);
            let stepped = pairs.filter_map(|(parameter, g)| g.as_ref().map(|_| parameter));
            let of = |it: &Parameter| specs.of(it.group, it.layout.shape.len());
            stepped.map(of).collect()
        };
        let pair = |group: GroupSegments<'_>| {
            // SAFETY: types that differ in a lifetime. `renew`, which alone returns the segments,
            // finds their memory to be that of the parameters and their state, and replaces the
            // gradients.
            unsafe {
                (
                    std::mem::transmute::<Vec<Segment<'_, f32>>, Vec<Segment<'static, f32>>>(
                        group.single,
                    ),
                    std::mem::transmute::<Vec<Segment<'_, f64>>, Vec<Segment<'static, f64>>>(
                        group.double,
                    ),
                )
            }
        };
        Kept {
            written: Some(Arc::clone(written)),
            specs: kept.unwrap_or_else(all_specs),
            groups: groups.into_iter().map(pair).collect(),
        }
    }

    /// Returns new segments of every group.
    ///
    /// # Safety
    /// `check` has passed for every parameter that has a gradient, and for all parameters if there
    /// are outputs. `gradients` and `outputs` belong to these parameters. While the result exists,
    /// no other code accesses the memory of parameters, state, outputs and written gradients, or
    /// writes that of other gradients.
    unsafe fn group_segments<'a>(
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
            let mut found = empty(group);
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

/// Returns a group without segments.
fn empty(group: &Group) -> GroupSegments<'_> {
    GroupSegments {
        maximize: group.maximize,
        regularization: group.regularization,
        ..GroupSegments::new(&group.method)
    }
}

/// Renews a segment, if it is that of the parameter of this index.
#[inline]
fn renew<'a, T: Float>(
    segment: Option<&mut Segment<'a, T>>,
    index: usize,
    g: StorageView<'a, T>,
    context: StepContext,
) -> bool {
    let segment = segment.filter(|segment| segment.index() == index);
    segment.map(|segment| segment.renew(g, context)).is_some()
}

/// Returns the view of a gradient for a rule.
///
/// # Safety
/// No other code writes the gradient while the result exists, or accesses it if it is `written`.
#[inline]
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
