//! The cautious mask (Liang et al., 2024): elements of the step whose sign differs from that of the
//! gradient are set to 0, and the others are divided by the proportion that remains.

use crate::numeric::float::Float;
use crate::sweep::rule::{Rule, TwoPassRule};
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

/// A rule whose step can be masked: `p = keep * p - u`.
pub(super) trait Directed<T, const S: usize>: Rule<T, S> {
    /// Returns the factor of p by decoupled weight decay.
    fn keep(&self) -> T;

    /// Returns the step u, which includes the learning rate, and the new state.
    fn direction(&self, g: T, state: [T; S]) -> (T, [T; S]);

    /// Returns a number with the sign of u. Rules override it if that takes less work than u.
    #[inline(always)]
    fn sense(&self, g: T, state: [T; S]) -> T {
        self.direction(g, state).0
    }
}

/// Returns the sign of a b, even if the product underflows.
#[inline(always)]
fn agreement<T: Float>(a: T, b: T) -> T {
    a.sign() * b.sign()
}

/// `p = keep * p - u [u g > 0] / max(mean([u g > 0]), 0.001)`, with the mean over the array.
#[derive(Clone, Copy)]
pub(super) struct Cautious<R>(pub(super) R);

impl<T: Float, const S: usize, R: Directed<T, S>> TwoPassRule<T, S> for Cautious<R> {
    const STATE: [StateSpec; S] = R::STATE;
    const FIRST_WRITES: bool = false;
    const SQUARED: bool = false;
    const SUMS: usize = 1;

    #[inline(always)]
    fn first(&self, _p: T, g: T, state: [T; S]) -> ([T; S], [T; 2]) {
        let agrees = agreement(self.0.sense(g, state), g) > T::ZERO;
        let kept = if agrees { T::ONE } else { T::ZERO };
        (state, [kept, T::ZERO])
    }

    fn ratio(&self, [kept, _]: Sums, n: usize) -> f64 {
        1.0 / (kept / n as f64).max(1e-3)
    }

    #[inline(always)]
    fn second(&self, ratio: T, p: T, g: T, state: [T; S]) -> (T, [T; S]) {
        let agreement = agreement(self.0.sense(g, state), g);
        let (u, state) = self.0.direction(g, state);
        // Written as `<= 0` so that a NaN propagates into the parameter.
        let u = if agreement <= T::ZERO { T::ZERO } else { u };
        (p * self.0.keep() - u * ratio, state)
    }
}
