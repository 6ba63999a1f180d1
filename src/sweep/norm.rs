//! The measurements of all gradients that precede the first write of a step: their norm, and
//! whether they are finite.

use std::ops::Range;

use crate::exec::isa::Tier;
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::numeric::scale::ScaleFactor;
use crate::ops::clip::scaled_root;
use crate::reduce::{self, Elements, Largest, Measure, ScaledSquares, Squares};
use crate::storage::precision::Precision;
use crate::sweep::all_reduce::AllReduce;
use crate::sweep::prologue::Prologue;
use crate::sweep::segment::Segment;

/// The segments of one parameter group and their prologue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'s, 'a> {
    /// The segments computed in single precision.
    pub(crate) single: &'s [Segment<'a, f32>],
    /// The segments computed in double precision.
    pub(crate) double: &'s [Segment<'a, f64>],
    /// The operations on the gradients. Clipping by norm and weight decay are ignored.
    pub(crate) prologue: Prologue,
}

/// Returns the 2-norm over all processes of the gradients after unscaling, penalty and clipping by
/// value. With `check`, the result is NaN if a gradient is not finite, even if clipping makes it
/// finite. Reads the gradients once. The scale and the bound must be the same in all groups.
pub(crate) fn norm(groups: &[Group<'_, '_>], check: bool, ranks: &dyn AllReduce) -> f64 {
    // What is the same for all gradients comes last: they need not be scaled one by one.
    let unprepared = groups.iter().all(|group| group.prologue.is_scale());
    let squares = || reduce::total(&measure_all(groups, Squares, check, unprepared, ranks));
    let scaled = |scale| {
        let squares = ScaledSquares { scale };
        reduce::total(&measure_all(groups, squares, check, unprepared, ranks))
    };
    let largest = || {
        let largest = measure_all(groups, Largest, false, unprepared, ranks);
        largest.into_iter().fold(0.0, f64::max_or_nan)
    };
    let single = groups.iter().all(|group| group.double.is_empty());
    let norm = scaled_root(single, squares, scaled, largest);
    match groups.first() {
        Some(Group { prologue, .. }) if unprepared => {
            let [a, b] = prologue.scale.parts::<f64>();
            norm * a.abs() * b.abs()
        }
        _ => norm,
    }
}

/// Returns the smallest index of a parameter whose unscaled gradient is not finite.
pub(crate) fn first_infinite(groups: &[Group<'_, '_>]) -> Option<usize> {
    fn infinite<T: Float>(segments: &[Segment<'_, T>], scale: ScaleFactor) -> Vec<usize> {
        let gradients: Vec<_> = segments.iter().map(|segment| &segment.g).collect();
        let largest = reduce::measure(&gradients, Largest);
        let [a, b] = scale.parts::<T>();
        let finite = |x: f64| (T::from_f64(x) * a * b).is_finite();
        let pairs = segments.iter().zip(largest);
        pairs
            .filter(|(_, x)| !finite(*x))
            .map(|(segment, _)| segment.index)
            .collect()
    }
    let found = groups.iter().flat_map(|group| {
        let scale = group.prologue.scale;
        let mut found = infinite(group.single, scale);
        found.extend(infinite(group.double, scale));
        found
    });
    found.min()
}

/// Measures every gradient, in the order of the parameter indices: after its prologue, or as it is
/// where `unprepared` holds.
fn measure_all(
    groups: &[Group<'_, '_>],
    what: impl Measure,
    check: bool,
    unprepared: bool,
    ranks: &dyn AllReduce,
) -> Vec<f64> {
    let mut all: Vec<(usize, (usize, usize), Precision<_, _>)> = Vec::new();
    for group in groups {
        let prologue = if unprepared {
            Prologue::default()
        } else {
            Prologue {
                coefficient: ScaleFactor::ONE,
                weight_decay: 0.0,
                ..group.prologue
            }
        };
        let single = group.single.iter();
        let single = single.map(|s| {
            (
                s.index,
                (s.offset, s.whole),
                Precision::Single(Prepared::new(s, prologue, check)),
            )
        });
        let double = group.double.iter();
        let double = double.map(|s| {
            (
                s.index,
                (s.offset, s.whole),
                Precision::Double(Prepared::new(s, prologue, check)),
            )
        });
        all.extend(single);
        all.extend(double);
    }
    all.sort_by_key(|(index, ..)| *index);
    let parts: Vec<_> = all.iter().map(|(_, part, _)| *part).collect();
    let gradients: Vec<_> = all.into_iter().map(|(.., gradient)| gradient).collect();
    if ranks.is_local() {
        return reduce::measure(&gradients, what);
    }
    reduce::measure_parts(&gradients, &parts, what, |blocks| ranks.sum(blocks))
}

/// The gradient of a segment after a prologue.
struct Prepared<'s, 'a, T> {
    segment: &'s Segment<'a, T>,
    prologue: Prologue,
    /// Whether an element that is not finite makes the measure NaN, even if clipping makes it
    /// finite.
    check: bool,
}

impl<'s, 'a, T> Prepared<'s, 'a, T> {
    fn new(segment: &'s Segment<'a, T>, prologue: Prologue, check: bool) -> Self {
        Self {
            segment,
            prologue,
            check,
        }
    }
}

impl<T: Float> Elements for Prepared<'_, '_, T> {
    fn len(&self) -> usize {
        self.segment.len()
    }

    fn block(&self, range: Range<usize>, what: impl Measure, tier: Tier) -> f64 {
        let Self {
            segment,
            prologue,
            check,
        } = self;
        if *prologue == Prologue::default() {
            // The measure itself is not finite if the gradient is not.
            return segment.g.block(range, what, tier);
        }
        let Range { start, end } = range;
        let n = end - start;
        let mut scratch = Scratch::<T, 3>::new(reduce::BLOCK);
        let [loaded_g, loaded_p, prepared] = scratch.arrays();
        // SAFETY: the range is inside the segment, whose gradient is as long as its parameter. The
        // segment is borrowed as shared, and a step that writes takes it by value.
        let g = unsafe { segment.g.read_into(start, &mut loaded_g[..n], tier) };
        // SAFETY: as for the gradient.
        let p = unsafe { segment.p.read_into(start, &mut loaded_p[..n], tier) };
        let out = &mut prepared[..n];
        prologue.write(p, g, out, tier);
        let infinite = if *check {
            let scale = prologue.scale.parts::<T>();
            reduce::block(g, Infinite { scale }, tier)
        } else {
            0.0
        };
        reduce::block(out, what, tier) + infinite
    }
}

/// 0, or NaN if a scaled element is not finite.
#[derive(Clone, Copy)]
struct Infinite<T> {
    scale: [T; 2],
}

impl<T: Float> Measure for Infinite<T> {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        let scaled = T::from_f64(x) * self.scale[0] * self.scale[1];
        lane + scaled.to_f64() * 0.0
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}
