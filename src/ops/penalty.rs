//! Penalties on the size of the parameters, `l1 sum(abs(w)) + l2 sum(w^2)`, and their gradients.

use std::ops::Range;

use crate::exec::isa::{self, Kernel, Tier};
use crate::exec::pool::Shared;
use crate::numeric::float::Float;
use crate::ops::clip::{Array, measure_all};
use crate::reduce;

/// The two coefficients; one that is 0 switches its term off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// Of the absolute values.
    pub l1: f64,
    /// Of the squares, without a factor one half.
    pub l2: f64,
}

/// A parameter, and its gradient to be added to.
#[derive(Debug)]
pub enum Pair<'a> {
    /// Single precision.
    F32(&'a [f32], &'a mut [f32]),
    /// Double precision.
    F64(&'a [f64], &'a mut [f64]),
}

impl Penalty {
    /// The penalty on all arrays, which combine in order, each from blocks of its own.
    pub fn value(self, params: &[Array<'_>]) -> f64 {
        self.apply(Value(params))
    }

    /// Adds the gradient `l1 sign(w) + 2 l2 w` to every gradient, in one pass, and gives the
    /// penalty: the bits of `value`.
    ///
    /// # Panics
    /// A gradient is not as long as its parameter.
    pub fn add_gradient(self, pairs: &mut [Pair<'_>]) -> f64 {
        self.apply(Gradient(pairs))
    }

    /// A term that is off is left out rather than multiplied by 0: an infinite parameter would make
    /// it NaN. It is decided here, as a branch in the loops would keep them from being vectorized.
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

/// The terms that are on.
#[derive(Clone, Copy)]
struct Terms<const L1: bool, const L2: bool> {
    l1: f64,
    l2: f64,
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

/// In order. `sum` would give -0 for nothing.
fn total(penalties: &[f64]) -> f64 {
    penalties.iter().fold(0.0, |sum, penalty| sum + penalty)
}

/// What is done with the terms, whichever they are.
trait Apply {
    fn apply<const L1: bool, const L2: bool>(self, terms: Terms<L1, L2>) -> f64;
}

struct Value<'a>(&'a [Array<'a>]);

impl Apply for Value<'_> {
    fn apply<const L1: bool, const L2: bool>(self, terms: Terms<L1, L2>) -> f64 {
        total(&measure_all(self.0, terms))
    }
}

struct Gradient<'a, 'b>(&'a mut [Pair<'b>]);

impl Apply for Gradient<'_, '_> {
    fn apply<const L1: bool, const L2: bool>(self, terms: Terms<L1, L2>) -> f64 {
        let tier = isa::current();
        let (lengths, tasks): (Vec<_>, Vec<_>) = self
            .0
            .iter_mut()
            .map(|pair| match pair {
                Pair::F32(w, g) => (w.len(), task(terms, w, g, tier)),
                Pair::F64(w, g) => (w.len(), task(terms, w, g, tier)),
            })
            .unzip();
        // Reads two arrays and writes one, where AdamW has seven streams.
        let cost = lengths.iter().sum::<usize>() / 2;
        // SAFETY: `blockwise` comes to each block once, so no two threads are in one.
        let block = |owner: usize, block| unsafe { tasks[owner].run(block) };
        let join = |a, b| reduce::Measure::join(terms, a, b);
        total(&reduce::blockwise(&lengths, cost, join, block))
    }
}

fn task<'a, T: Float, const L1: bool, const L2: bool>(
    terms: Terms<L1, L2>,
    w: &'a [T],
    g: &'a mut [T],
    tier: Tier,
) -> Box<dyn Task + 'a> {
    assert_eq!(
        w.len(),
        g.len(),
        "a gradient has the length of its parameter"
    );
    Box::new(Penalized {
        terms,
        w,
        g: Shared::new(g),
        tier,
    })
}

/// One parameter, of whatever type.
trait Task: Sync {
    /// Adds the gradient to the elements of one block, and gives their penalty.
    ///
    /// # Safety
    /// No two threads are in one block.
    unsafe fn run(&self, block: Range<usize>) -> f64;
}

struct Penalized<'a, T, const L1: bool, const L2: bool> {
    terms: Terms<L1, L2>,
    w: &'a [T],
    g: Shared<'a, T>,
    tier: Tier,
}

impl<T: Float, const L1: bool, const L2: bool> Task for Penalized<'_, T, L1, L2> {
    unsafe fn run(&self, block: Range<usize>) -> f64 {
        // SAFETY: no other thread is in the block, by the contract of `Task::run`.
        let g = unsafe { self.g.slice_mut(block.start, block.end) };
        let w = &self.w[block];
        self.tier.run(AddGradient::<T, L1, L2> {
            w,
            g,
            l1: T::from_f64(self.terms.l1),
            twice_l2: T::from_f64(2.0 * self.terms.l2),
        });
        // The block is in the L1 cache by now.
        reduce::block(w, self.terms, self.tier)
    }
}

struct AddGradient<'a, T, const L1: bool, const L2: bool> {
    w: &'a [T],
    g: &'a mut [T],
    l1: T,
    twice_l2: T,
}

impl<T: Float, const L1: bool, const L2: bool> Kernel for AddGradient<'_, T, L1, L2> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.g.len();
        let w = &self.w[..n];
        for i in 0..n {
            let absolute = if L1 { self.l1 * w[i].sign() } else { T::ZERO };
            let square = if L2 { self.twice_l2 * w[i] } else { T::ZERO };
            self.g[i] += absolute + square;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::pool;

    fn numbers(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 37) % 101) as f64 - 50.0).collect()
    }

    #[test]
    fn value_and_gradient_are_the_formula() {
        for (l1, l2) in [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25)] {
            let regularizer = Penalty { l1, l2 };
            let w = numbers(if cfg!(miri) { 1007 } else { 10_007 });
            let mut g = vec![1.0; w.len()];
            let value = regularizer.add_gradient(&mut [Pair::F64(&w, &mut g)]);
            let expected: f64 = w.iter().map(|w| l1 * w.abs() + l2 * w * w).sum();
            assert_eq!(value, expected);
            assert_eq!(regularizer.value(&[Array::F64(&w)]), expected);
            for (w, g) in w.iter().zip(&g) {
                let sign = if *w == 0.0 { 0.0 } else { w.signum() };
                assert_eq!(*g, 1.0 + l1 * sign + 2.0 * l2 * w);
            }
        }
    }

    #[test]
    fn a_term_that_is_off_adds_nothing_to_infinity() {
        let w = [f32::INFINITY];
        for (l1, l2, slope) in [(0.5, 0.0, 0.5), (0.0, 0.5, f32::INFINITY), (0.0, 0.0, 0.0)] {
            let mut g = [0.0];
            let value = Penalty { l1, l2 }.add_gradient(&mut [Pair::F32(&w, &mut g)]);
            assert_eq!(value, if l1 + l2 > 0.0 { f64::INFINITY } else { 0.0 });
            assert_eq!(g, [slope]);
        }
    }

    #[test]
    fn tiers_threads_and_value_give_the_same_bits() {
        let regularizer = Penalty { l1: 0.1, l2: 0.3 };
        let sizes: Vec<usize> = if cfg!(miri) {
            vec![0, 1, 257, 601]
        } else {
            (0..70).chain([4095, 4096, 4097, 300_001]).collect()
        };
        for n in sizes {
            let double: Vec<f64> = numbers(n).iter().map(|w| w / 7.0).collect();
            let single: Vec<f32> = double.iter().map(|&w| w as f32).collect();
            let run = || {
                let (mut f, mut d) = (vec![0.5; n], vec![0.5; n]);
                let value = regularizer
                    .add_gradient(&mut [Pair::F32(&single, &mut f), Pair::F64(&double, &mut d)]);
                (value, f, d)
            };
            let expected = isa::with_tier(Tier::Baseline, run).expect("supported");
            let arrays = [Array::F32(&single), Array::F64(&double)];
            assert_eq!(regularizer.value(&arrays), expected.0);
            for tier in Tier::supported() {
                for count in [1, 2, 3] {
                    let call = || pool::with_threads(count, run);
                    assert!(isa::with_tier(tier, call).expect("supported") == expected);
                }
            }
        }
    }
}
