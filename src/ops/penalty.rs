//! Penalties on the size of the parameters, `l1 sum(abs(w)) + l2 sum(w^2)`, and their gradients.

use std::ops::Range;

use crate::exec::isa::{self, Kernel, Tier};
use crate::exec::prefetch::{ahead, prefetch};
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::reduce;
use crate::storage::precision::{AnyPair, AnyView, Pair, Precision};

/// The coefficients of the penalty. A coefficient of 0 disables its term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// The coefficient of the absolute values.
    pub l1: f64,
    /// The coefficient of the squares, without a factor 1/2.
    pub l2: f64,
}

impl Penalty {
    /// No penalty.
    pub const NONE: Self = Self { l1: 0.0, l2: 0.0 };

    /// Returns the penalty on all arrays. Each array is divided into blocks separately, and the
    /// arrays are combined in order.
    pub fn value(self, params: &[AnyView<'_>]) -> f64 {
        self.apply(Value(params))
    }

    /// Adds the gradient `l1 sign(w) + 2 l2 w` to the second array of every pair of a parameter and
    /// its gradient, and returns the penalty, bitwise identical to [`Penalty::value`]. Reads the
    /// parameters once.
    ///
    /// # Panics
    /// A gradient has another length than its parameter, or is read-only.
    pub fn add_gradient(self, pairs: &mut [AnyPair<'_>]) -> f64 {
        for pair in &*pairs {
            match pair {
                Precision::Single(pair) => check(pair),
                Precision::Double(pair) => check(pair),
            }
        }
        self.apply(Gradient(pairs))
    }

    /// Calls `what` with the enabled terms. A disabled term is skipped and not multiplied by 0,
    /// because 0 times an infinite parameter is NaN. The terms are constants of the loops, because
    /// a branch would prevent vectorization.
    fn apply(self, what: impl Apply) -> f64 {
        let Self { l1, l2 } = self;
        match (l1 == 0.0, l2 == 0.0) {
            (true, true) => 0.0,
            (false, true) => what.apply(Terms::<true, false> { l1, l2 }),
            (true, false) => what.apply(Terms::<false, true> { l1, l2 }),
            (false, false) => what.apply(Terms::<true, true> { l1, l2 }),
        }
    }
}

/// The enabled terms.
#[derive(Clone, Copy)]
struct Terms<const L1: bool, const L2: bool> {
    l1: f64,
    l2: f64,
}

impl<const L1: bool, const L2: bool> Terms<L1, L2> {
    /// The gradient of one element.
    #[inline(always)]
    fn gradient<T: Float>(self, w: T) -> T {
        let (l1, twice_l2) = (T::from_f64(self.l1), T::from_f64(2.0 * self.l2));
        let absolute = if L1 { l1 * w.sign() } else { T::ZERO };
        let square = if L2 { twice_l2 * w } else { T::ZERO };
        absolute + square
    }
}

impl<const L1: bool, const L2: bool> reduce::Measure for Terms<L1, L2> {
    #[inline(always)]
    fn add(self, lane: f64, w: f64) -> f64 {
        let absolute = if L1 { self.l1 * w.abs() } else { 0.0 };
        let square = if L2 { self.l2 * (w * w) } else { 0.0 };
        lane + (absolute + square)
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// A computation that is generic over the enabled terms.
trait Apply {
    fn apply<const L1: bool, const L2: bool>(self, terms: Terms<L1, L2>) -> f64;
}

struct Value<'a, 'b>(&'a [AnyView<'b>]);

impl Apply for Value<'_, '_> {
    fn apply<const L1: bool, const L2: bool>(self, terms: Terms<L1, L2>) -> f64 {
        reduce::total(&reduce::measure(self.0, terms))
    }
}

fn check<T: Float>((w, g): &Pair<'_, T>) {
    let fits = w.len() == g.len();
    assert!(fits, "a gradient must have the length of its parameter");
    assert!(g.is_writable(), "gradients must be writable");
}

/// Pairs that `check` has accepted.
struct Gradient<'a, 'b>(&'a mut [AnyPair<'b>]);

impl Apply for Gradient<'_, '_> {
    fn apply<const L1: bool, const L2: bool>(self, terms: Terms<L1, L2>) -> f64 {
        let tier = isa::current();
        let length = |pair: &AnyPair<'_>| match pair {
            Precision::Single((w, _)) => w.len(),
            Precision::Double((w, _)) => w.len(),
        };
        let lengths: Vec<_> = self.0.iter().map(length).collect();
        // Reads two arrays and writes one. AdamW reads four arrays and writes three.
        let cost = lengths.iter().sum::<usize>() / 2;
        // SAFETY: `blockwise` gives each block once, inside the arrays and without overlap.
        // `add_gradient` borrows the pairs exclusively and has checked them.
        let block = |owner: usize, block| unsafe {
            match &self.0[owner] {
                Precision::Single(pair) => add_block(terms, pair, block, tier),
                Precision::Double(pair) => add_block(terms, pair, block, tier),
            }
        };
        let join = |a, b| reduce::Measure::join(terms, a, b);
        reduce::total(&reduce::blockwise(&lengths, cost, join, block))
    }
}

/// Adds the gradient to the elements of one block, and returns their penalty.
///
/// # Safety
/// The block is inside both arrays, the second is writable, and no other code accesses its elements
/// or writes those of the first during the call.
unsafe fn add_block<T: Float, const L1: bool, const L2: bool>(
    terms: Terms<L1, L2>,
    (w, g): &Pair<'_, T>,
    block: Range<usize>,
    tier: Tier,
) -> f64 {
    let ahead = ahead(w.len());
    let start = block.start;
    let mut scratch = Scratch::<T, 1>::new(reduce::BLOCK);
    let [loaded] = scratch.arrays();
    // SAFETY: by this function's contract the block is inside `w`, and no other code writes it.
    let w = unsafe { w.read_into(start, &mut loaded[..block.len()], tier) };
    let mut penalty = None;
    let add = |at: usize, g: &mut [T]| {
        let add = AddGradient {
            terms,
            w: &w[at - start..][..g.len()],
            g,
        };
        // The blocks of sums are not the tiles of an encoding.
        if ahead > 0 && add.w.len() == w.len() {
            penalty = Some(tier.run(AddAndMeasure { add, ahead }));
        } else {
            tier.run(add);
        }
    };
    // SAFETY: by this function's contract the block is inside the writable `g`, and no other code
    // accesses it.
    unsafe { g.update(block, tier, add) };
    // The block is in the L1 cache, so it is not read from memory again.
    penalty.unwrap_or_else(|| reduce::block(w, terms, tier))
}

struct AddGradient<'a, T, const L1: bool, const L2: bool> {
    terms: Terms<L1, L2>,
    w: &'a [T],
    g: &'a mut [T],
}

impl<T: Float, const L1: bool, const L2: bool> Kernel for AddGradient<'_, T, L1, L2> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.g.len();
        let w = &self.w[..n];
        for i in 0..n {
            self.g[i] += self.terms.gradient(w[i]);
        }
    }
}

/// Adds the gradient and measures the penalty in one loop, for arrays that come from memory: it
/// would be idle during a second loop over the block in the L1 cache.
struct AddAndMeasure<'a, T, const L1: bool, const L2: bool> {
    add: AddGradient<'a, T, L1, L2>,
    ahead: usize,
}

impl<T: Float, const L1: bool, const L2: bool> Kernel for AddAndMeasure<'_, T, L1, L2> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let AddGradient { terms, w, g } = self.add;
        assert_eq!(w.len(), g.len());
        reduce::rows(w, terms, self.ahead, |from, w| {
            let g = &mut g[from..from + w.len()];
            prefetch(g.as_ptr().wrapping_add(self.ahead), w.len());
            for i in 0..w.len() {
                g[i] += terms.gradient(w[i]);
            }
        })
    }
}

/// The proximal operator of `threshold sum(abs(p))`: moves every element towards 0 by the
/// threshold, and one that is no larger to 0. NaN stays NaN.
pub(crate) struct Shrink<'a, T> {
    pub(crate) p: &'a mut [T],
    pub(crate) threshold: T,
}

impl<T: Float> Kernel for Shrink<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for p in self.p {
            *p = *p - p.clamp_abs(self.threshold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::pool;
    use crate::storage::view::StorageView;

    fn numbers(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 37) % 101) as f64 - 50.0).collect()
    }

    #[test]
    fn value_and_gradient_are_those_of_the_formula() {
        for (l1, l2) in [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25)] {
            let regularizer = Penalty { l1, l2 };
            let w = numbers(if cfg!(miri) { 1007 } else { 10_007 });
            let mut g = vec![1.0; w.len()];
            let value = regularizer.add_gradient(&mut [(
                StorageView::read(&w),
                StorageView::native(&mut g),
            )
                .into()]);
            let expected: f64 = w.iter().map(|w| l1 * w.abs() + l2 * w * w).sum();
            assert_eq!(value, expected);
            assert_eq!(regularizer.value(&[StorageView::read(&w).into()]), expected);
            for (w, g) in w.iter().zip(&g) {
                let sign = if *w == 0.0 { 0.0 } else { w.signum() };
                assert_eq!(*g, 1.0 + l1 * sign + 2.0 * l2 * w);
            }
        }
    }

    #[test]
    fn shrinking_is_soft_thresholding() {
        let mut p = [2.0, -2.0, 0.5, -0.5, 0.25, -0.0, f32::INFINITY, f32::NAN];
        let threshold = 0.5;
        isa::current().run(Shrink {
            p: &mut p,
            threshold,
        });
        assert_eq!(p[..7], [1.5, -1.5, 0.0, 0.0, 0.0, 0.0, f32::INFINITY]);
        assert!(p[2..6].iter().all(|p| p.is_sign_positive()));
        assert!(p[7].is_nan());
    }

    #[test]
    fn a_disabled_term_ignores_infinite_parameters() {
        let w = [f32::INFINITY];
        for (l1, l2, slope) in [(0.5, 0.0, 0.5), (0.0, 0.5, f32::INFINITY), (0.0, 0.0, 0.0)] {
            let mut g = [0.0];
            let value = Penalty { l1, l2 }.add_gradient(&mut [(
                StorageView::read(&w),
                StorageView::native(&mut g),
            )
                .into()]);
            assert_eq!(value, if l1 + l2 > 0.0 { f64::INFINITY } else { 0.0 });
            assert_eq!(g, [slope]);
        }
    }

    #[test]
    fn tiers_threads_and_value_give_the_same_bits() {
        let regularizer = Penalty { l1: 0.1, l2: 0.3 };
        let sizes: Vec<usize> = if cfg!(miri) {
            vec![0, 1, 2100]
        } else {
            (0..70).chain([4095, 4096, 4097, 300_001]).collect()
        };
        for n in sizes {
            let double: Vec<f64> = numbers(n).iter().map(|w| w / 7.0).collect();
            let single: Vec<f32> = double.iter().map(|&w| w as f32).collect();
            let run = || {
                let (mut f, mut d) = (vec![0.5; n], vec![0.5; n]);
                let value = regularizer.add_gradient(&mut [
                    (StorageView::read(&single), StorageView::native(&mut f)).into(),
                    (StorageView::read(&double), StorageView::native(&mut d)).into(),
                ]);
                (value, f, d)
            };
            let expected = isa::with_tier(Tier::Baseline, run).expect("supported");
            let arrays = [
                StorageView::read(&single).into(),
                StorageView::read(&double).into(),
            ];
            assert_eq!(regularizer.value(&arrays), expected.0);
            for tier in Tier::supported() {
                for count in if cfg!(miri) { 3..4 } else { 1..4 } {
                    let call = || pool::with_threads(count, run);
                    assert!(isa::with_tier(tier, call).expect("supported") == expected);
                }
            }
        }
    }
}
