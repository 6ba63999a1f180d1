//! Penalties on the size of the parameters, `l1 sum(abs(w)) + l2 sum(w^2)`, and their gradients.

use std::ops::Range;

use crate::clip::{Array, measure_all};
use crate::float::Float;
use crate::isa::{self, Kernel, Tier};
use crate::reduce;
use crate::threads::Shared;

/// The two coefficients; one that is 0 switches its term off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularizer {
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

impl reduce::Measure for Regularizer {
    #[inline(always)]
    fn add(self, lane: f64, w: f64) -> f64 {
        lane + (term(self.l1, w.abs()) + term(self.l2, w * w))
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// Not a term of 0: a parameter that is infinite would make it NaN.
#[inline(always)]
fn term<T: Float>(coefficient: T, x: T) -> T {
    if coefficient == T::ZERO {
        T::ZERO
    } else {
        coefficient * x
    }
}

impl Regularizer {
    /// The penalty on all arrays, which combine in order, each from blocks of its own.
    pub fn value(self, params: &[Array<'_>]) -> f64 {
        measure_all(params, self).iter().sum()
    }

    /// Adds the gradient `l1 sign(w) + 2 l2 w` to every gradient, in one pass, and gives the
    /// penalty: the bits of `value`.
    ///
    /// # Panics
    /// A gradient is not as long as its parameter.
    pub fn add_gradient(self, pairs: &mut [Pair<'_>]) -> f64 {
        let tier = isa::current();
        let (lengths, tasks): (Vec<_>, Vec<_>) = pairs
            .iter_mut()
            .map(|pair| match pair {
                Pair::F32(w, g) => (w.len(), self.task(w, g, tier)),
                Pair::F64(w, g) => (w.len(), self.task(w, g, tier)),
            })
            .unzip();
        // Reads two arrays and writes one, where AdamW has seven streams.
        let cost = lengths.iter().sum::<usize>() / 2;
        // SAFETY: `blockwise` comes to each block once.
        let block = |owner: usize, block| unsafe { tasks[owner].run(block) };
        reduce::blockwise(&lengths, cost, |a, b| a + b, block)
            .iter()
            .sum()
    }

    fn task<'a, T: Float>(self, w: &'a [T], g: &'a mut [T], tier: Tier) -> Box<dyn Task + 'a> {
        assert_eq!(
            w.len(),
            g.len(),
            "a gradient has the length of its parameter"
        );
        Box::new(Penalized {
            regularizer: self,
            w,
            g: Shared::new(g),
            tier,
        })
    }
}

/// One parameter, of whatever type.
trait Task: Sync {
    /// Adds the gradient to the elements of one block, and gives their penalty.
    ///
    /// # Safety
    /// No two threads are in one block.
    unsafe fn run(&self, block: Range<usize>) -> f64;
}

struct Penalized<'a, T> {
    regularizer: Regularizer,
    w: &'a [T],
    g: Shared<'a, T>,
    tier: Tier,
}

impl<T: Float> Task for Penalized<'_, T> {
    unsafe fn run(&self, block: Range<usize>) -> f64 {
        let Regularizer { l1, l2 } = self.regularizer;
        // SAFETY: the caller has the block alone.
        let g = unsafe { self.g.slice_mut(block.start, block.end) };
        let w = &self.w[block];
        self.tier.run(AddGradient {
            w,
            g,
            l1: T::from_f64(l1),
            twice_l2: T::from_f64(2.0 * l2),
        });
        // The block is in the L1 cache by now.
        reduce::block(w, self.regularizer, self.tier)
    }
}

struct AddGradient<'a, T> {
    w: &'a [T],
    g: &'a mut [T],
    l1: T,
    twice_l2: T,
}

impl<T: Float> Kernel for AddGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.g.len();
        let w = &self.w[..n];
        for i in 0..n {
            let slope = term(self.l1, w[i].sign()) + term(self.twice_l2, w[i]);
            self.g[i] += slope;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads;

    fn numbers(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 37) % 101) as f64 - 50.0).collect()
    }

    #[test]
    fn value_and_gradient_are_the_formula() {
        for (l1, l2) in [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25)] {
            let regularizer = Regularizer { l1, l2 };
            let w = numbers(10_007);
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
            let value = Regularizer { l1, l2 }.add_gradient(&mut [Pair::F32(&w, &mut g)]);
            assert_eq!(value, if l1 + l2 > 0.0 { f64::INFINITY } else { 0.0 });
            assert_eq!(g, [slope]);
        }
    }

    #[test]
    fn tiers_threads_and_value_give_the_same_bits() {
        let regularizer = Regularizer { l1: 0.1, l2: 0.3 };
        for n in (0..70).chain([4095, 4096, 4097, 300_001]) {
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
                    let call = || threads::with_threads(count, run);
                    assert!(isa::with_tier(tier, call).expect("supported") == expected);
                }
            }
        }
    }
}
