//! The driver of elementwise rules: prepares the gradient and applies the rule in one pass.
//!
//! If the gradient is only scaled, the loop of the rule runs directly on the caller's memory. What
//! is frequent beside that is done by a loop of its own, [in registers](super::registers). All
//! other work is done tile by tile in a buffer that stays in the L1 cache, and the loop of the rule
//! then runs on that buffer.

use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool::CHUNK;
use crate::exec::prefetch::{LARGE, prefetch};
use crate::exec::scratch::TILE;
use crate::numeric::float::Float;
use crate::storage::GROUP;
use crate::sweep::prologue::Prologue;
use crate::sweep::registers;
use crate::sweep::rule::Rule;
use crate::sweep::segment::{Rules, Segment, Slices, StepContext};
use crate::sweep::subnormal;
use crate::sweep::task::{Driver, cost};
use crate::sweep::tile::{Writes, for_each_tile};

/// Elements that are loaded, updated, stored and passed to the epilogue together: first for arrays
/// that fit in a cache, then for larger ones, where long arithmetic would leave the memory idle.
/// AdamW with bfloat16 moments on Zen 5, one core in cache: 0.38 ns per element with 1024 at a
/// time, 0.53 with 256. Two cores at 16 Mi elements: 12.3 ms with 64, 8.0 with 128, 5.8 with 256,
/// 7.9 with 512, 8.8 with 1024. Prefetching the next block made all of them slower.
const BLOCK: [usize; 2] = [TILE, 256];

/// Elements that are assumed to fit in an L2 cache with their state, for which nothing is prefetched.
const IN_L2: usize = 2 * CHUNK;

/// While an array of at most so many elements is updated, the next one is prefetched: processors
/// prefetch only within a page, and only after the first accesses to it. AdamW on 1000 arrays of
/// 1 Ki elements, one thread of Zen 3 (AVX2): 0.95 ns per element without, 0.71 with; with only the
/// first 16 of 64 lines of each array 1.04.
const SHORT: usize = 4096;

/// Elements from those that are updated to those that are prefetched in arrays beyond the caches.
/// One thread of Zen 3, AdamW on 16 Mi elements: 1.13 ns per element without, 1.06 with 128, 0.98
/// with 256, 1.05 with 512, 1.03 with 1024; two threads 0.74 without, 0.65 with 256.
const DISTANCE: usize = 256;

/// The segments that one type of rule updates.
pub(crate) struct Elementwise<'a, T, R, const S: usize> {
    segments: &'a [Segment<'a, T>],
    /// The end of each segment in the concatenation of all segments. Segments that are processed
    /// in tiles are padded to whole tiles.
    ends: Vec<usize>,
    rules: Rules<R>,
    prologue: Prologue,
}

impl<'a, T: Float, const S: usize, R: Rule<T, S>> Elementwise<'a, T, R, S> {
    /// Creates the driver of `segments`, and merges those that may be merged. `rule_at` returns the
    /// rule for a context.
    ///
    /// # Panics
    /// A segment does not have `S` state arrays.
    pub(crate) fn new(
        segments: &'a mut Vec<Segment<'_, T>>,
        prologue: Prologue,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self {
        for segment in &*segments {
            segment.check_elementwise(S);
        }
        if segments.iter().any(Segment::may_follow) {
            segments.dedup_by(|next, last| last.absorb(next));
        }
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
            ends,
            rules: Rules::new(segments, rule_at),
            segments,
            prologue,
        }
    }
}

impl<T: Float, const S: usize, R: Rule<T, S>> Driver for Elementwise<'_, T, R, S> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        let elements = self.ends.last().copied().unwrap_or(0);
        (elements.div_ceil(CHUNK), elements * cost::<T>())
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let elements = self.ends.last().copied().unwrap_or(0);
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
            let ahead = self.ahead(index, part.0, end < to, elements);
            let ahead = ahead.as_ref();
            // SAFETY: `part` is inside the segment. No other chunk contains these elements, and by
            // the contract of `run` no chunk is processed twice.
            unsafe { self.part(index, part, ahead, tier) };
            at = end;
            index += 1;
        }
    }
}

impl<T: Float, const S: usize, R: Rule<T, S>> Elementwise<'_, T, R, S> {
    /// Returns what to prefetch while the part of a segment from element `from` on is updated.
    /// `continues` says whether the chunk has a part of the next segment.
    fn ahead(
        &self,
        index: usize,
        from: usize,
        continues: bool,
        elements: usize,
    ) -> Option<Ahead<T, S>> {
        if elements <= IN_L2 {
            None
        } else if continues && self.segments[index].len() <= SHORT {
            Some(Ahead::at(&self.segments[index + 1], 0))
        } else {
            (elements > LARGE).then(|| Ahead::at(&self.segments[index], from + DISTANCE))
        }
    }

    /// # Safety
    /// `from <= to <= len`, and no other code accesses these elements of the segment and of the
    /// targets of its epilogue during the call.
    unsafe fn part(
        &self,
        index: usize,
        (from, to): (usize, usize),
        ahead: Option<&Ahead<T, S>>,
        tier: Tier,
    ) {
        let segment = &self.segments[index];
        let rule = self.rules.at(index);
        let flushes = subnormal::is_due(segment.context);
        let update = |scale, mut slices: Slices<'_, T, S>, ahead| {
            apply(rule, scale, slices.reborrow(), ahead, tier);
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
                return update(scale, segment.slices(from, to), ahead);
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
                |scale, slices| update(scale, slices, None),
            );
        }
    }
}

/// Applies a rule to a part of one segment, with the gradient times `scale`.
pub(crate) fn apply<T: Float, const S: usize, R: Rule<T, S>>(
    rule: R,
    scale: T,
    slices: Slices<'_, T, S>,
    ahead: Option<&Ahead<T, S>>,
    tier: Tier,
) {
    tier.run(Piece {
        rule,
        scale,
        slices,
        ahead,
    });
}

/// The addresses to prefetch while the first element of a part is updated; those for the others
/// follow. They may be outside the arrays.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<T, const S: usize> {
    p: *const T,
    g: *const T,
    state: [*const T; S],
}

impl<T: Float, const S: usize> Ahead<T, S> {
    /// The addresses of element `at` of a segment. Those of arrays that are not native are others.
    fn at(segment: &Segment<'_, T>, at: usize) -> Self {
        Self {
            p: segment.p.address(at),
            g: segment.g.address(at),
            state: std::array::from_fn(|j| segment.state()[j].address(at)),
        }
    }

    /// Prefetches a group.
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        prefetch(self.p.wrapping_add(index), GROUP);
        prefetch(self.g.wrapping_add(index), GROUP);
        for j in 0..S {
            prefetch(self.state[j].wrapping_add(index), GROUP);
        }
    }
}

/// A copy of the elements of a group.
#[inline(always)]
fn group<T: Float>(array: &[T], start: usize) -> [T; GROUP] {
    let mut group = [T::ZERO; GROUP];
    group.copy_from_slice(&array[start..start + GROUP]);
    group
}

/// The loop over a part of one segment.
struct Piece<'a, T, R, const S: usize> {
    rule: R,
    scale: T,
    slices: Slices<'a, T, S>,
    /// A reference, as the loads of a copy of recently written words would wait for their stores.
    ahead: Option<&'a Ahead<T, S>>,
}

impl<T: Float, const S: usize, R: Rule<T, S>> Kernel for Piece<'_, T, R, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            rule,
            scale,
            slices: Slices { p, g, state },
            ahead,
        } = self;
        let n = p.len();
        assert_eq!(g.len(), n);
        for array in &state {
            assert_eq!(array.len(), n);
        }
        let mut start = 0;
        if let Some(&ahead) = ahead {
            while start + GROUP <= n {
                ahead.prefetch(start);
                // Copies of constant size stay in registers, and their loop is vectorized.
                let mut new_p = group(p, start);
                let g = group(g, start);
                let mut new: [[T; GROUP]; S] = std::array::from_fn(|j| group(state[j], start));
                for i in 0..GROUP {
                    let mut old = [T::ZERO; S];
                    for j in 0..S {
                        old[j] = new[j][i];
                    }
                    let (updated, moved) = rule.update(new_p[i], g[i] * scale, old);
                    new_p[i] = updated;
                    for j in 0..S {
                        new[j][i] = moved[j];
                    }
                }
                p[start..start + GROUP].copy_from_slice(&new_p);
                for j in 0..S {
                    state[j][start..start + GROUP].copy_from_slice(&new[j]);
                }
                start += GROUP;
            }
        }
        for i in start..n {
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
        let mut segments = vec![segment(0), follows(4), follows(8)];
        let sweep = Elementwise::new(&mut segments, Prologue::default(), rule);
        assert_eq!(sweep.ends, [12]);
        let mut segments = vec![segment(0), follows(4), segment(8)];
        let sweep = Elementwise::new(&mut segments, Prologue::default(), rule);
        assert_eq!(sweep.ends, [8, 12]);
    }

    #[derive(Clone, Copy)]
    struct Accumulate;

    impl Rule<f32, 1> for Accumulate {
        const STATE: [StateSpec; 1] = [StateSpec::other("sum")];

        #[inline(always)]
        fn update(&self, p: f32, g: f32, [sum]: [f32; 1]) -> (f32, [f32; 1]) {
            (p - g * sum, [sum + g])
        }
    }

    #[test]
    fn prefetching_changes_no_results() {
        let short = if cfg!(miri) { 103 } else { 1003 };
        for (count, n) in [(IN_L2 / short + 1, short), (1, LARGE + 37)] {
            let number = |i: usize| (i % 1009) as f32 / 64.0 - 7.0;
            let arrays: [Vec<f32>; 3] =
                std::array::from_fn(|k| (0..count * n).map(|i| number(i + 300 * k)).collect());
            let [mut p, g, mut sum] = arrays.clone();
            let [mut expected_p, _, mut expected_sum] = arrays;
            for i in 0..count * n {
                let updated = Accumulate.update(expected_p[i], g[i], [expected_sum[i]]);
                (expected_p[i], [expected_sum[i]]) = updated;
            }
            let shape = [n];
            let parts = p.chunks_mut(n).zip(g.chunks(n)).zip(sum.chunks_mut(n));
            let mut segments = parts
                .map(|((p, g), sum)| Segment::native(p, g, &shape, [sum], StepContext::default()))
                .collect();
            let sweep = Elementwise::new(&mut segments, Prologue::default(), |_| Accumulate);
            assert!(sweep.ahead(0, 0, count > 1, count * n).is_some());
            let tier = *Tier::supported().last().expect("at least the baseline");
            // SAFETY: each chunk is processed once, and nothing else uses the arrays.
            (0..sweep.chunks(0).0).for_each(|chunk| unsafe { sweep.run(0, chunk, tier) });
            drop(sweep);
            assert_eq!((p, sum), (expected_p, expected_sum));
        }
    }
}
