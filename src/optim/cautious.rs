//! The cautious mask (Liang et al., 2024): a step keeps only the elements whose sign the gradient
//! shares, and grows by what it has lost.

use crate::numeric::float::Float;
use crate::sweep::rule::{Rule, TwoPassRule};
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

/// A rule whose step can be masked: `p = keep * p - u`.
pub(super) trait Directed<T, const S: usize>: Rule<T, S> {
    /// What decoupled decay leaves of p.
    fn keep(&self) -> T;

    /// The step u, learning rate included, and the new state.
    fn direction(&self, g: T, state: [T; S]) -> (T, [T; S]);

    /// A number of u's sign, for less work than u where there is one.
    #[inline(always)]
    fn sense(&self, g: T, state: [T; S]) -> T {
        self.direction(g, state).0
    }
}

/// The sign of a product that may itself be too small to have one.
#[inline(always)]
fn agreement<T: Float>(a: T, b: T) -> T {
    a.sign() * b.sign()
}

/// `p = keep * p - u [u g > 0] / max(mean([u g > 0]), 0.001)`, the mean over the array.
#[derive(Clone, Copy)]
pub(super) struct Cautious<R>(pub(super) R);

impl<T: Float, const S: usize, R: Directed<T, S>> TwoPassRule<T, S> for Cautious<R> {
    const STATE: [StateSpec; S] = R::STATE;
    const FIRST_WRITES: bool = false;
    const SQUARED: bool = false;

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
        // Not `> 0` turned around: a NaN goes on into the parameter.
        let u = if agreement <= T::ZERO { T::ZERO } else { u };
        (p * self.0.keep() - u * ratio, state)
    }
}
