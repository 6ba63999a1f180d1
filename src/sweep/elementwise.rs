//! The driver of elementwise rules: prepares the gradient and applies the rule in one pass.
//!
//! If the gradient is only scaled, the loop of the rule runs directly on the caller's memory. What
//! is frequent beside that is done by a loop of its own, [in registers](super::registers). All
//! other work is done tile by tile in a buffer that stays in the L1 cache, and the loop of the rule
//! then runs on that buffer.

use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool::CHUNK;
use crate::exec::prefetch::LARGE;
use crate::exec::scratch::TILE;
use crate::numeric::float::Float;
use crate::sweep::prologue::Prologue;
use crate::sweep::registers;
use crate::sweep::rule::Rule;
use crate::sweep::segment::{Segment, Slices, StepContext, rules};
use crate::sweep::subnormal;
use crate::sweep::task::Driver;
use crate::sweep::tile::{Writes, for_each_tile};

/// Elements that are loaded, updated, stored and passed to the epilogue together: first for arrays
/// that fit in a cache, then for larger ones, where long arithmetic would leave the memory idle.
/// AdamW with bfloat16 moments on Zen 5, one core in cache: 0.38 ns per element with 1024 at a
/// time, 0.53 with 256. Two cores at 16 Mi elements: 12.3 ms with 64, 8.0 with 128, 5.8 with 256,
/// 7.9 with 512, 8.8 with 1024. Prefetching the next block made all of them slower.
const BLOCK: [usize; 2] = [TILE, 256];

/// The segments that one type of rule updates.
pub(crate) struct Elementwise<'a, T, R, const S: usize> {
    segments: Vec<Segment<'a, T>>,
    /// The end of each segment in the concatenation of all segments. Segments that are processed
    /// in tiles are padded to whole tiles.
    ends: Vec<usize>,
    rules: Vec<R>,
    prologue: Prologue,
}

impl<'a, T: Float, const S: usize, R: Rule<T, S>> Elementwise<'a, T, R, S> {
    /// Creates the driver of `segments`. `rule_at` returns the rule for a context.
    ///
    /// # Panics
    /// A segment does not have `S` state arrays.
    pub(crate) fn new(
        mut segments: Vec<Segment<'a, T>>,
        prologue: Prologue,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self {
        for segment in &segments {
            segment.check_elementwise(S);
        }
        if segments.iter().any(Segment::may_follow) {
            segments.dedup_by(|next, last| last.absorb(next));
        }
        let rules = rules(&segments, rule_at);
        let unit = if segments.iter().all(Segment::is_bare) {
            1
        } else {
            TILE
        };
        let mut end = 0;
        let ends = segments
            .iter()
            .map(|segment| {
                end += segment.len().next_multiple_of(unit);
                end
            })
            .collect();
        Self {
            segments,
            ends,
            rules,
            prologue,
        }
    }
}

impl<T: Float, const S: usize, R: Rule<T, S>> Driver for Elementwise<'_, T, R, S> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        let elements = self.ends.last().copied().unwrap_or(0);
        (elements.div_ceil(CHUNK), elements)
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let (_, elements) = self.chunks(0);
        let (from, to) = (chunk * CHUNK, elements.min((chunk + 1) * CHUNK));
        let mut index = self.ends.partition_point(|&end| end <= from);
        let mut at = from;
        while at < to {
            let segment = &self.segments[index];
            let end = self.ends[index].min(to);
            let start = match index {
                0 => 0,
                _ => self.ends[index - 1],
            };
            let part = (at - start, (end - start).min(segment.len()));
            // SAFETY: `part` is inside the segment. No other chunk contains these elements, and by
            // the contract of `run` no chunk is processed twice.
            unsafe { self.part(index, part, tier) };
            at = end;
            index += 1;
        }
    }
}

impl<T: Float, const S: usize, R: Rule<T, S>> Elementwise<'_, T, R, S> {
    /// # Safety
    /// `from <= to <= len`, and no other code accesses these elements of the segment and of the
    /// targets of its epilogue during the call.
    unsafe fn part(&self, index: usize, (from, to): (usize, usize), tier: Tier) {
        let segment = &self.segments[index];
        let rule = self.rules[index];
        let flushes = subnormal::is_due(segment.context);
        let piece = |scale, mut slices: Slices<'_, T, S>| {
            apply(rule, scale, slices.reborrow(), tier);
            if flushes {
                subnormal::flush(&R::STATE, &mut slices, tier);
            }
        };
        let all = Writes {
            state: true,
            parameter: true,
        };
        let elements = self.ends.last().copied().unwrap_or(0);
        let block = BLOCK[usize::from(elements > LARGE)];
        // SAFETY: `new` called `check_elementwise` on every segment. The range and the exclusive
        // access are this function's contract.
        unsafe {
            if let (Some(scale), true) = (self.prologue.plain(), segment.is_bare()) {
                return piece(scale, segment.slices(from, to));
            }
            // `flush` works on native arrays.
            let done = if flushes {
                0
            } else {
                registers::update(segment, (from, to), rule, &self.prologue, tier)
            };
            for_each_tile(
                segment,
                (from + done, to),
                block,
                &self.prologue,
                all,
                tier,
                piece,
            );
        }
    }
}

/// Applies a rule to a part of one segment, with the gradient times `scale`.
pub(crate) fn apply<T: Float, const S: usize, R: Rule<T, S>>(
    rule: R,
    scale: T,
    slices: Slices<'_, T, S>,
    tier: Tier,
) {
    tier.run(Piece {
        rule,
        scale,
        slices,
    });
}

/// The loop over a part of one segment.
struct Piece<'a, T, R, const S: usize> {
    rule: R,
    scale: T,
    slices: Slices<'a, T, S>,
}

impl<T: Float, const S: usize, R: Rule<T, S>> Kernel for Piece<'_, T, R, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            rule,
            scale,
            slices: Slices { p, g, state },
        } = self;
        let n = p.len();
        assert_eq!(g.len(), n);
        for array in &state {
            assert_eq!(array.len(), n);
        }
        for i in 0..n {
            let mut old = [T::ZERO; S];
            for j in 0..S {
                old[j] = state[j][i];
            }
            let (new_p, new) = rule.update(p[i], g[i] * scale, old);
            p[i] = new_p;
            for j in 0..S {
                state[j][i] = new[j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::state::StateSpec;

    #[derive(Clone, Copy)]
    struct Keep;

    impl Rule<f32, 1> for Keep {
        const STATE: [StateSpec; 1] = [StateSpec::other("unchanged")];

        #[inline(always)]
        fn update(&self, p: f32, _g: f32, state: [f32; 1]) -> (f32, [f32; 1]) {
            (p, state)
        }
    }

    #[test]
    fn adjacent_segments_are_merged() {
        let [mut p, mut g, mut state] = [[0.0; 12]; 3];
        let arrays = [&mut p, &mut g, &mut state].map(|array| array.as_mut_ptr());
        let segment = |from: usize| {
            // SAFETY: the parts are inside the arrays and do not overlap, and the arrays are not
            // used while the segments exist.
            let [p, g, state] =
                arrays.map(|array| unsafe { std::slice::from_raw_parts_mut(array.add(from), 4) });
            Segment::native(p, g, &[4], [state], StepContext::default())
        };
        // SAFETY: each array of the segment comes from a pointer to the whole array that the
        // segment before it points into.
        let follows = |from| unsafe { segment(from).follows() };
        let rule = |_| Keep;
        let sweep = Elementwise::new(
            vec![segment(0), follows(4), follows(8)],
            Prologue::default(),
            rule,
        );
        assert_eq!(sweep.ends, [12]);
        let sweep = Elementwise::new(
            vec![segment(0), follows(4), segment(8)],
            Prologue::default(),
            rule,
        );
        assert_eq!(sweep.ends, [8, 12]);
    }
}
