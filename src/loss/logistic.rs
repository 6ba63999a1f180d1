//! The logistic function of a logit, and its logarithm, with relative accuracy in both tails.

use crate::loss::driver::pointwise::{ELEMENTARY, Piecewise};
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

/// [`Logistic`] of many logits.
pub(super) struct Logistics<T, const N: usize> {
    large: [T; N],
    small: [T; N],
    cost: [T; N],
}

impl<T: Math, const N: usize> Logistics<T, N> {
    #[inline(always)]
    pub(super) fn of(x: &[T; N]) -> Self {
        let mut e = *x;
        for i in 0..N {
            e[i] = -x[i].abs();
        }
        let e = T::exp_nonpositive_of(e);
        let (mut large, mut small) = ([T::ZERO; N], [T::ZERO; N]);
        for i in 0..N {
            large[i] = T::ONE / (T::ONE + e[i]);
            small[i] = e[i] * large[i];
        }
        Self {
            large,
            small,
            cost: T::ln_1p_small_of(e),
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> Logistic<T> {
        Logistic {
            large: self.large[index],
            small: self.small[index],
            cost: self.cost[index],
        }
    }
}

/// A loss of one logit per element.
pub(super) trait OfLogit<T: Math>: Copy + Send + Sync {
    /// The value for logit `x` and target `y`, and its derivative by `x`, from the functions of
    /// the logit.
    fn at(self, x: T, y: T, p: Logistic<T>) -> (T, T);

    /// The value and the derivative of one element.
    #[cfg(test)]
    fn of(self, x: T, y: T) -> (T, T) {
        self.at(x, y, Logistic::of(x))
    }
}

/// A loss of logits, applied to the elements of a piece.
#[derive(Clone, Copy)]
pub(super) struct EachLogit<L>(pub(super) L);

impl<T: Math, L: OfLogit<T>> Piecewise<T> for EachLogit<L> {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    const IN_STAGES: bool = true;

    #[inline(always)]
    fn piece<const N: usize>(
        self,
        _start: usize,
        _n: usize,
        x: &[T; N],
        y: &[T; N],
    ) -> ([T; N], [T; N]) {
        let p = Logistics::of(x);
        let (mut values, mut derivatives) = (*x, *x);
        for i in 0..N {
            (values[i], derivatives[i]) = self.0.at(x[i], y[i], p.get(i));
        }
        (values, derivatives)
    }
}
