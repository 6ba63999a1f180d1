//! The driver of rules with two passes: a direction and two sums, then the update.
//!
//! The first pass computes a direction and two sums over the array, and the second pass applies the
//! update with a ratio of the sums. Both passes over an array that fits in a share of the L2 cache
//! are in one chunk, so the array is read from memory once. So are those over a larger array among
//! many, of which the second pass finds a part in the cache. Any other array is divided into
//! chunks, and all threads are joined between the passes. The sums use fixed blocks and a fixed
//! tree, so neither the number of threads nor the other arrays affect the result.

use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool::{self, CHUNK};
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::reduce::{self, Measure, Partials, Squares, Sum};
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::{Term, TwoPassRule};
use crate::sweep::segment::{MAX_SCALARS, Rules, Segment, Slices, StepContext};
use crate::sweep::subnormal;
use crate::sweep::task::{Driver, Sums, cost};
use crate::sweep::tile::{Writes, for_each_tile};

/// The maximum number of elements of an array whose passes are in one chunk, whatever the other
/// arrays: 5 arrays of `f32` in 640 KiB.
const WHOLE: usize = 2 * CHUNK;

/// The maximum among so many arrays that such chunks divide evenly among several threads: at most
/// one of [`SHARES`] shares of the elements of a thread. Compared with two phases, 8 Mi elements in
/// arrays of 64, 128 and 256 Ki take 0.79, 0.83 and 0.91 times as long with LARS, and 0.82, 0.88
/// and 0.92 times with LAMB (two threads of Ice Lake with L2 caches of 1.25 MiB).
const LARGEST: usize = 16 * CHUNK;
const SHARES: usize = 8;

/// Returns the maximum number of elements of an array whose passes are in one chunk, among arrays
/// that have so many elements.
fn most(elements: usize) -> usize {
    match pool::count() {
        1 => LARGEST,
        threads => (elements / threads / SHARES).clamp(WHOLE, LARGEST),
    }
}

/// The number of elements per partial sum.
const BLOCK: usize = TILE;

/// A range of elements of one segment.
#[derive(Clone, Copy)]
struct Part {
    segment: usize,
    from: usize,
    to: usize,
    /// Whether the part is a whole segment, with both passes in the first phase.
    whole: bool,
}

impl Part {
    /// Returns the pieces of a chunk.
    fn cut(self) -> impl DoubleEndedIterator<Item = Self> {
        let Self { from, to, .. } = self;
        let starts = (0..(to - from).div_ceil(CHUNK)).map(move |index| from + index * CHUNK);
        starts.map(move |from| Self {
            from,
            to: to.min(from + CHUNK),
            ..self
        })
    }
}

/// The segments that one type of rule updates.
pub(crate) struct TwoPass<'a, T, R, const S: usize> {
    segments: &'a [Segment<'a, T>],
    rules: Rules<R>,
    prologue: Prologue,
    /// The parts of the first and of the second phase.
    parts: [Vec<Part>; 2],
    /// The first block of each segment.
    starts: Vec<usize>,
    /// The two sums of each block.
    blocks: Partials,
    /// The ratio of each segment for the second phase.
    ratios: Vec<f64>,
    scalars: Option<[f64; MAX_SCALARS]>,
}

impl<'a, T: Float, const S: usize, R: TwoPassRule<T, S>> TwoPass<'a, T, R, S> {
    /// Creates the driver of `segments`. `rule_at` returns the rule for a context.
    ///
    /// # Panics
    /// A segment does not have `S` state arrays.
    pub(crate) fn new(
        segments: &'a [Segment<'a, T>],
        prologue: Prologue,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self {
        for segment in segments {
            segment.check_elementwise(S);
        }
        let most = most(segments.iter().map(Segment::len).sum());
        let (mut first, mut second, mut starts, mut blocks) = (vec![], vec![], vec![], 0);
        for (index, segment) in segments.iter().enumerate() {
            starts.push(blocks);
            blocks += segment.whole.div_ceil(BLOCK);
            let n = segment.len();
            let all = Part {
                segment: index,
                from: 0,
                to: n,
                whole: !R::GLOBAL && segment.is_whole() && n <= most,
            };
            if all.whole {
                first.push(all);
            } else {
                first.extend(all.cut());
                second.extend(all.cut());
            }
        }
        Self {
            rules: Rules::new(segments, rule_at),
            ratios: vec![0.0; segments.len()],
            segments,
            prologue,
            parts: [first, second],
            starts,
            blocks: Partials::new(2 * blocks),
            scalars: None,
        }
    }

    /// Returns the sums of one segment, all of whose blocks have been computed.
    fn sums_of(&self, segment: usize) -> Sums {
        let start = self.starts[segment];
        let end = start + self.segments[segment].whole.div_ceil(BLOCK);
        [0, 1].map(|k| {
            let sums = (start..end).map(|block| self.blocks.get(2 * block + k));
            reduce::tree(&sums.collect::<Vec<_>>())
        })
    }

    /// # Safety
    /// `part` is one of `self.parts`, and no other code accesses these elements of the segment and
    /// of the targets of its epilogue during the call.
    unsafe fn first(&self, part: Part, tier: Tier) {
        let rule = self.rules.at(part.segment);
        let segment = &self.segments[part.segment];
        let block = self.starts[part.segment] + (segment.offset + part.from) / BLOCK;
        let writes = Writes {
            state: R::FIRST_WRITES,
            parameter: false,
        };
        let mut index = block;
        // What tiles load is in the cache.
        let in_place = segment.is_bare() && self.prologue.plain::<T>().is_some();
        let len = if in_place { segment.len() } else { 0 };
        let mut scratch = Scratch::<T, 2>::new(BLOCK);
        let mut values = scratch.arrays();
        let flushes = R::FIRST_WRITES && subnormal::is_due(segment.context);
        let pass = |scale, mut slices: Slices<'_, T, S>| {
            let n = slices.p.len();
            let values = values.each_mut().map(|array| &mut array[..n]);
            let sums = apply_first(rule, scale, slices.reborrow(), values, len, tier);
            if flushes {
                subnormal::flush(&R::STATE, &mut slices, tier);
            }
            for k in 0..2 {
                if R::SUMS[k] != Term::Nothing {
                    self.blocks.set(2 * index + k, sums[k]);
                }
            }
            index += 1;
        };
        let range = (part.from, part.to);
        // SAFETY: `new` called `check_elementwise` on every segment and created the parts inside
        // the segments. Exclusive access to the elements is this function's contract.
        unsafe { for_each_tile(segment, range, BLOCK, &self.prologue, writes, tier, pass) };
    }

    /// # Safety
    /// `part` is one of `self.parts`, and no other code accesses these elements of the segment and
    /// of the targets of its epilogue during the call.
    unsafe fn second(&self, part: Part, ratio: f64, tier: Tier) {
        let rule = self.rules.at(part.segment);
        let ratio = T::from_f64(ratio);
        let segment = &self.segments[part.segment];
        let writes = Writes {
            state: !R::FIRST_WRITES,
            parameter: true,
        };
        let flushes = !R::FIRST_WRITES && subnormal::is_due(segment.context);
        let pass = |scale, mut slices: Slices<'_, T, S>| {
            apply_second(rule, ratio, scale, slices.reborrow(), tier);
            if flushes {
                subnormal::flush(&R::STATE, &mut slices, tier);
            }
        };
        let range = (part.from, part.to);
        // SAFETY: `new` called `check_elementwise` on every segment and created the parts inside
        // the segments. Exclusive access to the elements is this function's contract.
        unsafe { for_each_tile(segment, range, BLOCK, &self.prologue, writes, tier, pass) };
    }
}

impl<T: Float, const S: usize, R: TwoPassRule<T, S>> Driver for TwoPass<'_, T, R, S> {
    fn phases(&self) -> usize {
        if self.parts[1].is_empty() { 1 } else { 2 }
    }

    fn blocks(&self) -> Option<&Partials> {
        Some(&self.blocks)
    }

    fn sums(&self) -> Sums {
        if !R::GLOBAL {
            return [0.0; 2];
        }
        let add = |a: Sums, b: Sums| [a[0] + b[0], a[1] + b[1]];
        (0..self.segments.len())
            .map(|index| self.sums_of(index))
            .fold([0.0; 2], add)
    }

    fn resolve(&mut self, totals: Sums) {
        for index in 0..self.segments.len() {
            let sums = if R::GLOBAL {
                totals
            } else {
                self.sums_of(index)
            };
            self.ratios[index] = self.rules.at(index).ratio(sums, self.segments[index].whole);
            self.scalars = self.rules.at(index).scalars(sums);
        }
    }

    fn chunks(&self, phase: usize) -> (usize, usize) {
        let parts = self.parts.get(phase).map_or(&[][..], Vec::as_slice);
        let elements: usize = parts.iter().map(|part| part.to - part.from).sum();
        (parts.len(), elements * cost::<T>())
    }

    unsafe fn run(&self, phase: usize, chunk: usize, tier: Tier) {
        let part = self.parts[phase][chunk];
        let segment = &self.segments[part.segment];
        // SAFETY: the parts of a phase do not overlap. By the contract of `run` each is processed
        // once, and the phases run one after the other.
        unsafe {
            if phase == 1 {
                return self.second(part, self.ratios[part.segment], tier);
            }
            self.first(part, tier);
            if part.whole {
                let sums = self.sums_of(part.segment);
                let ratio = self.rules.at(part.segment).ratio(sums, segment.whole);
                // The end of a large array is still in the cache, the start no longer.
                for piece in part.cut().rev() {
                    self.second(piece, ratio, tier);
                }
            }
        }
    }

    fn scalars(&self) -> Option<[f64; MAX_SCALARS]> {
        self.scalars
    }
}

/// Makes the first pass over one block of an array of `len` elements, or of a tile if `len` is 0,
/// and returns the sums. Values are stored in between.
pub(crate) fn apply_first<T: Float, const S: usize, R: TwoPassRule<T, S>>(
    rule: R,
    scale: T,
    mut slices: Slices<'_, T, S>,
    mut values: [&mut [T]; 2],
    len: usize,
    tier: Tier,
) -> Sums {
    const { assert!(!matches!(R::SUMS[1], Term::Count)) };
    let computes = R::SUMS[0].is_computed() || R::SUMS[1].is_computed();
    let mut count = 0;
    if R::FIRST_WRITES || computes {
        count = tier.run(First {
            rule,
            scale,
            slices: slices.reborrow(),
            values: values.each_mut().map(|array| &mut **array),
        });
    }
    // The sums prefetch if they are the first to read the arrays.
    let len = if computes { 0 } else { len };
    [0, 1].map(|k| match R::SUMS[k] {
        Term::Nothing => 0.0,
        Term::Value => reduce::block(values[k], Sum, tier),
        Term::Square => reduce::block(values[k], Squares, tier),
        Term::Count => f64::from(count),
        Term::ParameterSquare => reduce::part(slices.p, len, Squares, tier),
        Term::GradientSquare if scale == T::ONE => reduce::part(slices.g, len, Squares, tier),
        Term::GradientSquare => reduce::part(slices.g, len, Scaled(scale), tier),
    })
}

/// `sum((x scale)^2)`, where the product is rounded to the type of the elements.
#[derive(Clone, Copy)]
struct Scaled<T>(T);

impl<T: Float> Measure for Scaled<T> {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        Squares.add(lane, (T::from_f64(x) * self.0).to_f64())
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// Makes the second pass over one block.
pub(crate) fn apply_second<T: Float, const S: usize, R: TwoPassRule<T, S>>(
    rule: R,
    ratio: T,
    scale: T,
    slices: Slices<'_, T, S>,
    tier: Tier,
) {
    tier.run(Second {
        rule,
        ratio,
        scale,
        slices,
    });
}

/// The first pass over one block. It stores the values to be summed, and returns how many first
/// values are not 0 if they are counted. A loop that sums in double precision would not vectorize.
struct First<'a, T, R, const S: usize> {
    rule: R,
    scale: T,
    slices: Slices<'a, T, S>,
    values: [&'a mut [T]; 2],
}

impl<T: Float, const S: usize, R: TwoPassRule<T, S>> Kernel for First<'_, T, R, S> {
    type Output = u32;

    #[inline(always)]
    fn run(self) -> u32 {
        let Self {
            rule,
            scale,
            slices: Slices { p, g, state },
            values: [a, b],
        } = self;
        let n = p.len();
        assert!(g.len() == n && a.len() == n && b.len() == n);
        for array in &state {
            assert_eq!(array.len(), n);
        }
        let mut count = 0;
        for i in 0..n {
            let mut old = [T::ZERO; S];
            for j in 0..S {
                old[j] = state[j][i];
            }
            let (new, values) = rule.first(p[i], g[i] * scale, old);
            if R::FIRST_WRITES {
                for j in 0..S {
                    // The condition is the same for all elements, so the compiler moves it out of
                    // the loop.
                    if rule.moves(j) {
                        state[j][i] = new[j];
                    }
                }
            }
            if R::SUMS[0].is_stored() {
                a[i] = values[0];
            }
            if R::SUMS[1].is_stored() {
                b[i] = values[1];
            }
            if matches!(R::SUMS[0], Term::Count) {
                count += u32::from(values[0] != T::ZERO);
            }
        }
        count
    }
}

struct Second<'a, T, R, const S: usize> {
    rule: R,
    ratio: T,
    scale: T,
    slices: Slices<'a, T, S>,
}

impl<T: Float, const S: usize, R: TwoPassRule<T, S>> Kernel for Second<'_, T, R, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            rule,
            ratio,
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
            let (new_p, new) = rule.second(ratio, p[i], g[i] * scale, old);
            p[i] = new_p;
            if !R::FIRST_WRITES {
                for j in 0..S {
                    state[j][i] = new[j];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, SHARES};
    use crate::exec::pool;
    use crate::optim::Method;
    use crate::optim::lars::Lars;
    use crate::step::{self, GroupSegments, Local, Options, Segment, StepContext};

    const N: usize = 3 * CHUNK + 5;

    /// Returns the parameters and the momentum of equal arrays after a step on all of them.
    fn stepped(arrays: usize, threads: usize) -> Vec<[Vec<f32>; 2]> {
        let method = Method::LARS(Lars {
            lr: 0.1,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 1e-3,
            nesterov: true,
            trust_coefficient: 1e-2,
            eps: 1e-8,
            layer_adaptation: true,
        });
        let values = |scale: f32| -> Vec<f32> {
            let at = |i: usize| scale * (i % 89) as f32;
            (0..N).map(at).collect()
        };
        let (mut state, g) = (vec![[values(1.0), values(0.5)]; arrays], values(-0.25));
        let segments = state.iter_mut().enumerate().map(|(index, [p, v])| {
            let context = StepContext::default();
            Segment::native(p, &g, &[N], [v.as_mut_slice()], context).numbered(index)
        });
        let mut groups = [GroupSegments {
            single: segments.collect(),
            ..GroupSegments::new(&method)
        }];
        let run = || step::run(&mut groups, &Options::default(), &Local);
        assert!(pool::with_threads(threads, run).expect("in range").applied);
        state
    }

    #[test]
    fn passes_in_one_chunk_give_the_bits_of_two_phases() {
        let alone = &stepped(1, 2)[0];
        assert!(alone[0].iter().all(|x| x.is_finite()) && alone[0][1] != 1.0);
        assert!(pool::with_threads(2, || super::most(N)) < N);
        let many = 2 * SHARES;
        for (arrays, threads) in [(many, 2), (1, 1)] {
            assert!(pool::with_threads(threads, || super::most(arrays * N)) >= N);
            for array in stepped(arrays, threads) {
                assert!(array == *alone, "{arrays} arrays");
            }
        }
    }
}
