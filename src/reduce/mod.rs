//! Deterministic reductions: lanes, then blocks, then a fixed tree.
//!
//! An array is divided into blocks of [`BLOCK`] elements from its first element. Within a block,
//! element `i` is added to lane `i % LANES` in `f64`. Lanes and then blocks are combined by a tree
//! that depends only on their number. Threads compute different blocks, so their number does not
//! affect the result.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::exec::isa::{self, Kernel, Tier};
use crate::exec::pool;
use crate::exec::prefetch::{ahead, prefetch};
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::storage::precision::Precision;
use crate::storage::view::StorageView;

/// Elements per block: 16 KiB of `f32`, half of an L1 cache. Smaller under Miri, so that small
/// arrays have several blocks.
pub(crate) const BLOCK: usize = if cfg!(miri) { 256 } else { 4096 };

/// 32 `f64` lanes fill four AVX-512 or eight AVX2 registers. Other counts do not reliably
/// vectorize.
const LANES: usize = 32;

/// The number of lanes that are updated together: the `f64` of an AVX-512 register, the widest one.
pub(crate) const VECTOR: usize = 8;

/// Blocks per chunk of parallel work.
const CHUNK: usize = 8;

/// A sum or a maximum over elements.
pub(crate) trait Measure: Copy + Send + Sync {
    /// Adds an element to a lane.
    fn add(self, lane: f64, x: f64) -> f64;
    /// Combines two lanes.
    fn join(self, a: f64, b: f64) -> f64;
}

/// `sum(x)`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum;
/// `sum(abs(x))`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absolute;
/// `sum(x^2)`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Squares;
/// `sum((x scale)^2)`. A power of two prevents overflow and underflow of the squares of `f64`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaledSquares {
    pub(crate) scale: f64,
}
/// `max(abs(x))`, or NaN if an element is NaN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Largest;
/// `sum(abs(x / unit)^power)`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Powers {
    /// The exponent.
    pub(crate) power: f64,
    /// The divisor of the elements.
    pub(crate) unit: f64,
}

impl Measure for Sum {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        lane + x
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

impl Measure for Absolute {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        lane + x.abs()
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

impl Measure for Squares {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        lane + x * x
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

impl Measure for ScaledSquares {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        let x = x * self.scale;
        lane + x * x
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

impl Measure for Largest {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        lane.max_or_nan(x.abs())
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a.max_or_nan(b)
    }
}

impl Measure for Powers {
    #[inline(always)]
    fn add(self, lane: f64, x: f64) -> f64 {
        lane + (x.abs() / self.unit).powf(self.power)
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// The sum of what was measured, in order: 0 for nothing, where `Iterator::sum` gives -0.
pub(crate) fn total(measured: &[f64]) -> f64 {
    measured.iter().fold(0.0, |sum, x| sum + x)
}

struct Block<'a, T, M> {
    elements: &'a [T],
    measure: M,
    ahead: usize,
}

impl<T: Float, M: Measure> Kernel for Block<'_, T, M> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        rows(self.elements, self.measure, self.ahead, |_, _| ())
    }
}

/// Measures at most [`BLOCK`] elements, in a kernel that also calls `work` with each row of them
/// and its first index. Prefetches as many elements as `ahead` before their turn, if it is not 0.
#[inline(always)]
pub(crate) fn rows<T: Float, M: Measure>(
    elements: &[T],
    measure: M,
    ahead: usize,
    mut work: impl FnMut(usize, &[T]),
) -> f64 {
    // The compiler keeps arrays of constant size that are assigned as a whole in registers. This is
    // 5 times faster than assigning lane by lane.
    let mut vectors = [[0.0; VECTOR]; LANES / VECTOR];
    let (rows, rest) = elements.as_chunks::<LANES>();
    for (index, row) in rows.iter().enumerate() {
        if ahead > 0 {
            prefetch(row.as_ptr().wrapping_add(ahead), LANES);
        }
        work(index * LANES, row);
        for k in 0..LANES / VECTOR {
            let lane = |i: usize| measure.add(vectors[k][i], row[VECTOR * k + i].to_f64());
            vectors[k] = std::array::from_fn(lane);
        }
    }
    work(rows.len() * LANES, rest);
    let mut lanes = [0.0; LANES];
    for i in 0..LANES {
        lanes[i] = vectors[i / VECTOR][i % VECTOR];
    }
    for i in 0..rest.len() {
        lanes[i] = measure.add(lanes[i], rest[i].to_f64());
    }
    halve(lanes, |a, b| measure.join(a, b))
}

/// Combines all lanes: joins the upper half to the lower half until one lane remains.
#[inline(always)]
pub(crate) fn halve<S: Copy, const N: usize>(mut lanes: [S; N], join: impl Fn(S, S) -> S) -> S {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Sums all lanes in the order of [`halve`].
#[inline(always)]
pub(crate) fn sum<const N: usize>(lanes: [f64; N]) -> f64 {
    halve(lanes, |a, b| a + b)
}

/// Measures at most [`BLOCK`] elements.
pub(crate) fn block<T: Float, M: Measure>(elements: &[T], measure: M, tier: Tier) -> f64 {
    part(elements, 0, measure, tier)
}

/// Measures a block of an array of `whole` elements.
pub(crate) fn part<T: Float, M: Measure>(
    elements: &[T],
    whole: usize,
    measure: M,
    tier: Tier,
) -> f64 {
    tier.run(Block {
        elements,
        measure,
        ahead: ahead(whole),
    })
}

/// An array of numbers in any storage.
pub(crate) trait Elements: Sync {
    /// Returns the number of elements.
    fn len(&self) -> usize;
    /// Measures at most [`BLOCK`] elements. The range starts at a multiple of [`BLOCK`].
    fn block(&self, range: Range<usize>, measure: impl Measure, tier: Tier) -> f64;
}

impl<T: Float> Elements for [T] {
    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    fn block(&self, range: Range<usize>, measure: impl Measure, tier: Tier) -> f64 {
        part(&self[range], self.len(), measure, tier)
    }
}

impl<E: Elements + ?Sized> Elements for &E {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn block(&self, range: Range<usize>, measure: impl Measure, tier: Tier) -> f64 {
        (**self).block(range, measure, tier)
    }
}

impl<T: Float> Elements for StorageView<'_, T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn block(&self, range: Range<usize>, measure: impl Measure, tier: Tier) -> f64 {
        assert!(range.start <= range.end && range.end <= self.len());
        // SAFETY: the range is inside the array. The view is borrowed as shared, and code that
        // writes through a view owns it or borrows it exclusively.
        if let Some(elements) = unsafe { self.slice(range.start, range.end) } {
            return part(elements, self.len(), measure, tier);
        }
        let mut scratch = Scratch::<T, 1>::new(BLOCK);
        let [loaded] = scratch.arrays();
        let loaded = &mut loaded[..range.len()];
        // SAFETY: as for `slice`.
        unsafe { self.load(range.start, loaded, tier) };
        block(loaded, measure, tier)
    }
}

impl<S: Elements, D: Elements> Elements for Precision<S, D> {
    fn len(&self) -> usize {
        match self {
            Self::Single(x) => x.len(),
            Self::Double(x) => x.len(),
        }
    }

    fn block(&self, range: Range<usize>, measure: impl Measure, tier: Tier) -> f64 {
        match self {
            Self::Single(x) => x.block(range, measure, tier),
            Self::Double(x) => x.block(range, measure, tier),
        }
    }
}

/// Measures each array separately, with one fork-join for all arrays.
pub(crate) fn measure(arrays: &[impl Elements], measure: impl Measure) -> Vec<f64> {
    let tier = isa::current();
    let lengths: Vec<usize> = arrays.iter().map(Elements::len).collect();
    // Reading and squaring an element costs about a quarter of an AdamW step.
    let cost = lengths.iter().sum::<usize>() / 4;
    let join = |a, b| measure.join(a, b);
    blockwise(&lengths, cost, join, |owner, range| {
        arrays[owner].block(range, measure, tier)
    })
}

/// Measures arrays as [`measure`] does, of which this process has only parts. Each part is the
/// index of its first element and the length of its array. `combine` adds the results of the blocks
/// of all processes, each of which has the result of its own blocks and 0 for all others.
pub(crate) fn measure_parts(
    arrays: &[impl Elements],
    parts: &[(usize, usize)],
    measure: impl Measure,
    combine: impl FnOnce(&mut [f64]),
) -> Vec<f64> {
    let tier = isa::current();
    let lengths: Vec<usize> = arrays.iter().map(Elements::len).collect();
    let (own, wholes) = (starts(&lengths), starts_of(parts.iter().map(|part| part.1)));
    let cost = lengths.iter().sum::<usize>() / 4;
    let found = blocks(&lengths, &own, cost, |owner, range| {
        arrays[owner].block(range, measure, tier)
    });
    let mut all = vec![0.0; wholes[arrays.len()]];
    for (index, (offset, _)) in parts.iter().enumerate() {
        let found = &found[own[index]..own[index + 1]];
        let start = wholes[index] + offset / BLOCK;
        all[start..start + found.len()].copy_from_slice(found);
    }
    combine(&mut all);
    joined(&all, &wholes, |a, b| measure.join(a, b))
}

/// Calls `f` once with every block of arrays of these lengths: the index of the array and the range
/// of elements. Returns one result per array, its blocks combined by the tree. `elements` is the
/// total cost in elements of an AdamW step.
pub(crate) fn blockwise(
    lengths: &[usize],
    elements: usize,
    join: impl Fn(f64, f64) -> f64,
    f: impl Fn(usize, Range<usize>) -> f64 + Sync,
) -> Vec<f64> {
    let starts = starts(lengths);
    joined(&blocks(lengths, &starts, elements, f), &starts, join)
}

fn starts(lengths: &[usize]) -> Vec<usize> {
    starts_of(lengths.iter().copied())
}

/// Returns the first block of each array, and the number of all blocks.
fn starts_of(lengths: impl ExactSizeIterator<Item = usize>) -> Vec<usize> {
    let mut starts = Vec::with_capacity(lengths.len() + 1);
    let mut blocks = 0;
    for length in lengths {
        starts.push(blocks);
        blocks += length.div_ceil(BLOCK);
    }
    starts.push(blocks);
    starts
}

/// Returns the results of `f` for every block.
fn blocks(
    lengths: &[usize],
    starts: &[usize],
    elements: usize,
    f: impl Fn(usize, Range<usize>) -> f64 + Sync,
) -> Vec<f64> {
    let blocks = starts[lengths.len()];
    let partials = Partials::new(blocks);
    pool::run(blocks.div_ceil(CHUNK), elements, |chunk| {
        for block in chunk * CHUNK..((chunk + 1) * CHUNK).min(blocks) {
            let owner = starts.partition_point(|&start| start <= block) - 1;
            let start = (block - starts[owner]) * BLOCK;
            let end = lengths[owner].min(start + BLOCK);
            partials.set(block, f(owner, start..end));
        }
    });
    partials.into_values()
}

/// Combines the blocks of each array by the tree.
fn joined(blocks: &[f64], starts: &[usize], join: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    starts
        .windows(2)
        .map(|ends| fold(&blocks[ends[0]..ends[1]], &join))
        .collect()
}

/// The results of blocks, each written by the thread that computes it and read after the join.
#[derive(Debug)]
pub(crate) struct Partials(Vec<AtomicU64>);

impl Partials {
    /// Creates `blocks` results of 0.
    pub(crate) fn new(blocks: usize) -> Self {
        Self((0..blocks).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets the result of one block.
    pub(crate) fn set(&self, block: usize, x: f64) {
        self.0[block].store(x.to_bits(), Ordering::Relaxed);
    }

    /// Returns the number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the result of one block.
    pub(crate) fn get(&self, block: usize) -> f64 {
        f64::from_bits(self.0[block].load(Ordering::Relaxed))
    }

    fn into_values(self) -> Vec<f64> {
        let value = |x: AtomicU64| f64::from_bits(x.into_inner());
        self.0.into_iter().map(value).collect()
    }

    /// Sums all results by [`tree`].
    pub(crate) fn total(self) -> f64 {
        tree(&self.into_values())
    }
}

/// Sums the terms by a balanced tree whose shape depends only on their number. 0 without terms.
pub(crate) fn tree(terms: &[f64]) -> f64 {
    fold(terms, &|a, b| a + b)
}

fn fold(terms: &[f64], join: &impl Fn(f64, f64) -> f64) -> f64 {
    match terms {
        [] => 0.0,
        [only] => *only,
        _ => {
            let (left, right) = terms.split_at(terms.len().next_power_of_two() / 2);
            join(fold(left, join), fold(right, join))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_sums_every_term_once() {
        for n in 0..70 {
            let terms: Vec<f64> = (1..=n).map(f64::from).collect();
            assert_eq!(tree(&terms), f64::from(n * (n + 1) / 2));
        }
    }

    #[test]
    fn the_shape_of_a_tree_depends_only_on_the_number_of_terms() {
        // Exact, and neither commutative nor associative.
        let join = |a: f64, b: f64| 2.0 * a + 3.0 * b + 1.0;
        let [a, b, c, d, e, f, g] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        let (ab, cd, ef) = (join(a, b), join(c, d), join(e, f));
        for (terms, expected) in [
            (vec![], 0.0),
            (vec![a], a),
            (vec![a, b], ab),
            (vec![a, b, c], join(ab, c)),
            (vec![a, b, c, d], join(ab, cd)),
            (vec![a, b, c, d, e], join(join(ab, cd), e)),
            (vec![a, b, c, d, e, f], join(join(ab, cd), ef)),
            (vec![a, b, c, d, e, f, g], join(join(ab, cd), join(ef, g))),
        ] {
            assert_eq!(fold(&terms, &join), expected, "{terms:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "the blocks are smaller under Miri")]
    fn sums_have_the_recorded_bits() {
        // Whole blocks, a partial last block, and a partial last row of lanes.
        let x: Vec<f64> = (0..2 * BLOCK + 45)
            .map(|i| 1.0 / (i as f64 + 1.5))
            .collect();
        let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let bits = |found: Vec<f64>| found[0].to_bits();
        for tier in isa::Tier::supported() {
            let found = isa::with_tier(tier, || {
                [
                    bits(measure(&[&x[..]], Sum)),
                    bits(measure(&[&x[..]], Squares)),
                    bits(measure(&[&single[..]], Sum)),
                    bits(measure(&[&x[..77]], Sum)),
                ]
            });
            assert_eq!(
                found.expect("supported"),
                [
                    0x4021_f5c5_8fcf_ad08,
                    0x3fed_e8e7_bbe4_2863,
                    0x4021_f5c5_9204_5000,
                    0x4011_47e9_3f05_e27c
                ]
            );
        }
    }

    #[test]
    fn slices_are_measured_separately() {
        let ones = vec![1.0_f32; 3 * BLOCK + 5];
        let slices: [&[f32]; 3] = [&ones, &[], &ones[..7]];
        assert_eq!(
            measure(&slices, Absolute),
            [(3 * BLOCK + 5) as f64, 0.0, 7.0]
        );
        assert_eq!(measure(&slices, Largest), [1.0, 0.0, 1.0]);
    }
}
