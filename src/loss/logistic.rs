//! The logistic function of a logit, and its logarithm, with relative accuracy in both tails.

use crate::numeric::math::Math;

/// `sigmoid(|x|)` and its kin: of a negative `x` they are those of the opposite answer.
#[derive(Clone, Copy)]
pub(super) struct Logistic<T> {
    /// `sigmoid(|x|)`, the larger of `p` and `1 - p`.
    pub(super) large: T,
    /// `sigmoid(-|x|)`, the smaller.
    pub(super) small: T,
    /// `-ln(large)`; `-ln(small)` is `|x|` more.
    pub(super) cost: T,
}

impl<T: Math> Logistic<T> {
    #[inline(always)]
    pub(super) fn of(x: T) -> Self {
        let e = (-x.abs()).exp_nonpositive();
        let large = T::ONE / (T::ONE + e);
        Self {
            large,
            small: e * large,
            cost: e.ln_1p_small(),
        }
    }
}
