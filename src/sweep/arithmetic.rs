//! The upper bound that arithmetic sets to the speed of a rule: its own loop over one block that
//! stays in the L1 cache, without driver, segments and thread pool.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::exec::ceiling;
use crate::exec::isa::{self, Tier};
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::sweep::elementwise;
use crate::sweep::rule::{Rule, TensorRule, TwoPassRule, Visitor};
use crate::sweep::segment::{Slices, StepContext};
use crate::sweep::two_pass;

/// Bytes of all arrays of a block: three quarters of an L1 cache of 32 KiB, and 1024 elements of
/// AdamW.
const BYTES: usize = 24 << 10;

/// Applies a rule to at least `elements` elements on so many threads together, and returns the time
/// of `elements`.
pub(crate) struct Arithmetic {
    pub(crate) context: StepContext,
    pub(crate) elements: usize,
    pub(crate) threads: usize,
}

impl Arithmetic {
    /// Calls `update` on a block per thread. Its first two arrays, the parameter and the gradient,
    /// have both signs; the others are positive, as second moments are.
    fn time<T: Float>(
        &self,
        arrays: usize,
        update: impl Fn(&mut [&mut [T]], Tier) + Sync,
    ) -> Result<Duration> {
        let length = 1 << (BYTES / size_of::<T>() / arrays).ilog2();
        let passes = self.elements.div_ceil(self.threads * length);
        let tier = isa::current();
        let taken = ceiling::together(self.threads, |_| {
            let mut scratch = Scratch::<T, 1>::new(arrays * length);
            let [all] = scratch.arrays();
            all.fill(T::from_f32(1e-3));
            for x in all[..2 * length].iter_mut().step_by(2) {
                *x = -*x;
            }
            let mut arrays: Vec<_> = all.chunks_exact_mut(length).collect();
            for _ in 0..passes {
                update(&mut arrays, tier);
            }
        })?;
        let done = (passes * self.threads * length) as f64;
        Ok(taken.mul_f64(self.elements as f64 / done))
    }
}

/// The parameter, the gradient and the state among the arrays of a block.
fn slices<'a, T, const S: usize>(arrays: &'a mut [&mut [T]]) -> Slices<'a, T, S> {
    let [p, g, state @ ..] = arrays else {
        unreachable!("a block has a parameter and a gradient");
    };
    let mut state = state.iter_mut();
    Slices {
        p,
        g,
        state: std::array::from_fn(|_| &mut **state.next().expect("an array per state")),
    }
}

impl<T: Float> Visitor<T> for Arithmetic {
    type Output = Result<Duration>;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        let rule = rule_at(self.context);
        self.time(S + 2, |arrays, tier| {
            elementwise::apply(rule, T::ONE, slices(arrays), None, tier);
        })
    }

    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        let rule = rule_at(self.context);
        self.time(S + 4, |arrays, tier| {
            let (arrays, values) = arrays.split_at_mut(S + 2);
            let [a, b] = values else {
                unreachable!("a block has two arrays of values to be summed");
            };
            let n = a.len();
            let sums = two_pass::apply_first(rule, T::ONE, slices(arrays), [a, b], n, tier);
            let ratio = T::from_f64(rule.ratio(sums, n));
            two_pass::apply_second(rule, ratio, T::ONE, slices(arrays), tier);
        })
    }

    fn tensorwise<R: TensorRule<T> + 'static>(self, _: impl Fn(StepContext) -> R) -> Self::Output {
        let message = "the rule has no loop over elements: its work depends on the shape";
        Err(Error::Value(message.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sweep::state::StateSpec;

    static UPDATES: AtomicUsize = AtomicUsize::new(0);

    #[derive(Clone, Copy)]
    struct Counting;

    impl Rule<f32, 1> for Counting {
        const STATE: [StateSpec; 1] = [StateSpec::other("squares")];

        fn update(&self, p: f32, g: f32, [squares]: [f32; 1]) -> (f32, [f32; 1]) {
            assert!(g.abs() == 1e-3 && squares > 0.0);
            UPDATES.fetch_add(1, Ordering::Relaxed);
            (p - g, [squares + g * g])
        }
    }

    #[test]
    fn every_thread_updates_its_part_of_the_elements_in_whole_blocks() {
        let block = 2048;
        for (elements, threads, blocks) in [(1, 1, 1), (3 * block, 1, 3), (3 * block, 2, 4)] {
            UPDATES.store(0, Ordering::Relaxed);
            let arithmetic = Arithmetic {
                context: StepContext::default(),
                elements,
                threads,
            };
            let taken = arithmetic.elementwise(|_| Counting).expect("threads");
            assert!(taken > Duration::ZERO);
            assert_eq!(UPDATES.load(Ordering::Relaxed), blocks * block);
        }
    }
}
