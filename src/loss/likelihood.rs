//! Losses of predicted probabilities and rates.

use crate::error::Result;
use crate::hyper::{Kind, Range, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::driver::pointwise::{ELEMENTARY, Pointwise};
use crate::loss::signature::Signature;
use crate::numeric::math::Math;

hyper! {
    /// `y (ln y - x)` for a log-probability `x`, or `exp(y) (y - x)` for log-targets. A target of
    /// probability 0 adds 0 unless `x` is NaN.
    #[derive(Copy)]
    pub struct KlDivergence {
        /// Whether the targets are logarithms.
        log_target: bool, Kind::Flag;
    }
}

impl Loss for KlDivergence {
    const SIGNATURE: Signature = Signature {
        batch_mean: true,
        ..Signature::ELEMENTWISE
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Math> Pointwise<T> for KlDivergence {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let (chance, log) = if self.log_target {
            (y.exp(), y)
        } else {
            (y, y.ln())
        };
        if chance == T::ZERO && !x.is_nan() {
            return (T::ZERO, T::ZERO);
        }
        (chance * (log - x), -chance)
    }
}

hyper! {
    /// `exp(x) - y x` for a log-rate `x`, or `x - y ln(x + eps)` for a rate.
    #[derive(Copy)]
    pub struct Poisson {
        /// Whether `x` is the logarithm of the rate.
        log_input: bool, Kind::Flag;
        /// Whether Stirling's approximation of `ln(y!)` is added for `y > 1`.
        full: bool, Kind::Flag;
        /// Added to the rate before its logarithm is taken.
        eps: f64, Kind::Number(Range::Positive);
    }
}

impl Loss for Poisson {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        if self.full {
            call.pointwise(PoissonTerms::<true>(*self))
        } else {
            call.pointwise(PoissonTerms::<false>(*self))
        }
    }
}

/// [`Poisson`] with its flag `full` as a constant.
#[derive(Clone, Copy)]
struct PoissonTerms<const FULL: bool>(Poisson);

impl<T: Math, const FULL: bool> Pointwise<T> for PoissonTerms<FULL> {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let (mut value, slope) = if self.0.log_input {
            let rate = x.exp();
            (rate - y * x, rate - y)
        } else {
            let rate = x + T::from_f64(self.0.eps);
            (x - y * rate.ln(), T::ONE - y / rate)
        };
        if FULL && y > T::ONE {
            let [half, tau] = [0.5, std::f64::consts::TAU].map(T::from_f64);
            value += y * y.ln() - y + half * (tau * y).ln();
        }
        (value, slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let close = |(value, slope): (f64, f64), expected: (f64, f64)| {
            assert!((value - expected.0).abs() < 1e-14 && (slope - expected.1).abs() < 1e-14);
        };
        let kl = |log_target| KlDivergence { log_target };
        close(
            kl(false).at(-1.0_f64, 0.5),
            (0.5 * (0.5_f64.ln() + 1.0), -0.5),
        );
        close(kl(false).at(f64::NEG_INFINITY, 0.0), (0.0, 0.0));
        close(kl(true).at(-1.0_f64, 0.0), (1.0, -1.0));
        close(kl(true).at(-3.0_f64, f64::NEG_INFINITY), (0.0, 0.0));
        let poisson = |log_input, full| Poisson {
            log_input,
            full,
            eps: 0.0,
        };
        let of_log = PoissonTerms::<false>(poisson(true, false));
        close(of_log.at(0.0, 3.0), (1.0, -2.0));
        let of_rate = PoissonTerms::<false>(poisson(false, false));
        close(of_rate.at(2.0, 3.0), (2.0 - 3.0 * 2.0_f64.ln(), -0.5));
        let full = PoissonTerms::<true>(poisson(true, true));
        let stirling = 3.0 * 3.0_f64.ln() - 3.0 + 0.5 * (std::f64::consts::TAU * 3.0).ln();
        close(full.at(0.0, 3.0), (1.0 + stirling, -2.0));
    }
}
