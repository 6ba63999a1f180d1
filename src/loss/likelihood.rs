//! Losses of predicted probabilities and rates.

use crate::loss::driver::pointwise::Pointwise;
use crate::numeric::math::Math;

/// `y (ln y - x)` for a log-probability x, or `exp(y) (y - x)` for log-targets. A target of
/// probability 0 adds 0, whatever x is, unless it is NaN.
#[derive(Clone, Copy, Debug)]
pub struct KlDivergence {
    /// Whether the targets are logarithms.
    pub log_target: bool,
}

impl<T: Math> Pointwise<T> for KlDivergence {
    type Value = T;

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

/// `exp(x) - y x` for a log-rate x, or `x - y ln(x + eps)` for a rate. With `FULL`, Stirling's
/// approximation of ln(y!) for y > 1 is added.
#[derive(Clone, Copy, Debug)]
pub struct Poisson<T, const FULL: bool> {
    /// Whether x is the logarithm of the rate.
    pub log_input: bool,
    /// Keeps the logarithm from 0.
    pub eps: T,
}

impl<T: Math, const FULL: bool> Pointwise<T> for Poisson<T, FULL> {
    type Value = T;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let (mut value, slope) = if self.log_input {
            let rate = x.exp();
            (rate - y * x, rate - y)
        } else {
            let rate = x + self.eps;
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
        let of_log = Poisson::<_, false> {
            log_input: true,
            eps: 0.0_f64,
        };
        close(of_log.at(0.0, 3.0), (1.0, -2.0));
        let of_rate = Poisson::<_, false> {
            log_input: false,
            eps: 0.0_f64,
        };
        close(of_rate.at(2.0, 3.0), (2.0 - 3.0 * 2.0_f64.ln(), -0.5));
        let full = Poisson::<_, true> {
            log_input: true,
            eps: 0.0_f64,
        };
        let stirling = 3.0 * 3.0_f64.ln() - 3.0 + 0.5 * (std::f64::consts::TAU * 3.0).ln();
        close(full.at(0.0, 3.0), (1.0 + stirling, -2.0));
    }
}
