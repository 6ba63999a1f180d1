//! The logistic function of a logit, and its logarithm, with relative accuracy in both tails.

use crate::numeric::math::Math;

/// Functions of `|x|`. For a negative `x` they belong to the complementary answer.
#[derive(Clone, Copy)]
pub(super) struct Logistic<T> {
    /// `sigmoid(|x|)`, the larger of `p` and `1 - p`.
    pub(super) large: T,
    /// `sigmoid(-|x|)`, the smaller.
    pub(super) small: T,
    /// `-ln(large)`; `-ln(small)` is larger by `|x|`.
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
