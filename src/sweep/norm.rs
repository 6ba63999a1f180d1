//! What a step must know of all gradients before it may write anything: their norm, and whether they
//! are finite.

use std::ops::Range;

use crate::exec::isa::{self, Tier};
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::numeric::scale::ScaleFactor;
use crate::ops::clip::scaled_root;
use crate::reduce::{self, Largest, Measure, Squares};
use crate::sweep::all_reduce::AllReduce;
use crate::sweep::prologue::Prologue;
use crate::sweep::segment::Segment;

/// The segments of one parameter group, and what is done to their gradients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'s, 'a> {
    /// Those computed in single precision.
    pub(crate) single: &'s [Segment<'a, f32>],
    /// Those computed in double precision.
    pub(crate) double: &'s [Segment<'a, f64>],
    /// Its clipping by norm and its weight decay are left out.
    pub(crate) prologue: Prologue,
}

/// The 2-norm of all gradients, unscaled, regularized and clipped by value. With `check` it is NaN
/// where a gradient is not finite, even if clipping makes it so. One read of the gradients. The
/// scale and the bound are the same in all groups. With `ranks` it is over all processes.
pub(crate) fn norm(groups: &[Group<'_, '_>], check: bool, ranks: &dyn AllReduce) -> f64 {
    let sum = |unit| {
        let squares = measure_all(groups, Squares { scale: unit }, check);
        let [sum, _] = ranks.sum([squares.into_iter().sum(), 0.0]);
        sum
    };
    let largest = || {
        let largest = measure_all(groups, Largest, false);
        ranks.max(largest.into_iter().fold(0.0, f64::max_or_nan))
    };
    let double = groups.iter().any(|group| !group.double.is_empty());
    let single = ranks.max(f64::from(double)) == 0.0;
    let norm = scaled_root(single, sum, largest);
    // What is the same for all gradients comes last: they need not be scaled one by one.
    match groups.first() {
        Some(Group { prologue, .. }) if prologue.is_scale() => {
            let [a, b] = prologue.scale.parts::<f64>();
            norm * a.abs() * b.abs()
        }
        _ => norm,
    }
}

/// The first parameter, by its number, whose unscaled gradient is not finite.
pub(crate) fn first_infinite(groups: &[Group<'_, '_>]) -> Option<usize> {
    fn infinite<T: Float>(segments: &[Segment<'_, T>], scale: ScaleFactor) -> Vec<usize> {
        let raw = Prologue::default();
        let largest = measure(segments, &raw, Largest, false);
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

/// Measures every prepared gradient, in the order of the parameters.
fn measure_all(groups: &[Group<'_, '_>], what: impl Measure, check: bool) -> Vec<f64> {
    let mut found = Vec::new();
    for group in groups {
        let prologue = if group.prologue.is_scale() {
            Prologue::default()
        } else {
            Prologue {
                coefficient: ScaleFactor::ONE,
                weight_decay: 0.0,
                ..group.prologue
            }
        };
        let single = measure(group.single, &prologue, what, check);
        let double = measure(group.double, &prologue, what, check);
        found.extend(group.single.iter().map(|s| s.index).zip(single));
        found.extend(group.double.iter().map(|s| s.index).zip(double));
    }
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, x)| x).collect()
}

/// Measures the prepared gradient of every segment.
fn measure<T: Float>(
    segments: &[Segment<'_, T>],
    prologue: &Prologue,
    what: impl Measure,
    check: bool,
) -> Vec<f64> {
    let tier = isa::current();
    let lengths: Vec<usize> = segments.iter().map(Segment::len).collect();
    // Reading and squaring costs about a quarter of an AdamW step.
    let cost = lengths.iter().sum::<usize>() / 4;
    let join = |a, b| what.join(a, b);
    reduce::blockwise(&lengths, cost, join, |owner, range| {
        block(&segments[owner], range, prologue, what, check, tier)
    })
}

fn block<T: Float>(
    segment: &Segment<'_, T>,
    range: Range<usize>,
    prologue: &Prologue,
    what: impl Measure,
    check: bool,
    tier: Tier,
) -> f64 {
    let Range { start, end } = range;
    let n = end - start;
    let mut scratch = Scratch::<T, 3>::new(reduce::BLOCK);
    let [loaded, held, prepared] = scratch.arrays();
    // SAFETY: the range is inside the segment, whose gradient is as long as its parameter, and while
    // it is borrowed as shared nobody writes it: a step takes it by value.
    let g = unsafe { segment.g.read_into(start, &mut loaded[..n], tier) };
    if *prologue == Prologue::default() {
        // A gradient that is not finite shows in what is measured.
        return reduce::block(g, what, tier);
    }
    // SAFETY: as for the gradient, the range is inside and nobody writes a borrowed segment.
    let p = unsafe { segment.p.read_into(start, &mut held[..n], tier) };
    let out = &mut prepared[..n];
    prologue.write(p, g, out, tier);
    let infinite = if check {
        let scale = prologue.scale.parts::<T>();
        reduce::block(g, Infinite { scale }, tier)
    } else {
        0.0
    };
    reduce::block(out, what, tier) + infinite
}

/// 0, or NaN where an element that is scaled is not finite.
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
