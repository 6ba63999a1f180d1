//! Binary focal loss of logits: `a q^gamma c` for the probability of error `q`, the cross-entropy
//! `c`, and the weight `a` of the class (Lin et al., 2017).
//!
//! With `p = sigmoid(x)` it is `q = y (1 - p) + (1 - y) p`, with the derivative `q' = (1 - 2 y) p
//! (1 - p)`.

use crate::error::Result;
use crate::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::driver::pointwise::{ELEMENTARY, Pointwise};
use crate::loss::logistic::{EachLogit, Logistic, OfLogit};
use crate::loss::signature::Signature;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// The focal loss of a logit.
    #[derive(Copy)]
    pub struct SigmoidFocal {
        /// The exponent.
        gamma: f64, NON_NEGATIVE;
        /// The weight of the positives, where that of the negatives is `1 - alpha`. Without it both
        /// are 1.
        alpha: Option<f64>, Kind::Optional(Range::Unit);
    }
}

impl Loss for SigmoidFocal {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let alpha = match self.alpha {
            Some(alpha) => [alpha, 1.0 - alpha],
            None => [1.0, 1.0],
        };
        let gamma = self.gamma;
        if gamma == 2.0 {
            call.piecewise(EachLogit(SquaredFocal { alpha }))
        } else {
            call.pointwise(PowerFocal { gamma, alpha })
        }
    }
}

/// The focal loss with an exponent of 2, the usual one, which needs no power function.
#[derive(Clone, Copy)]
struct SquaredFocal {
    /// The weights of positives and negatives.
    alpha: [f64; 2],
}

/// The focal loss with any exponent, in `f64`: a power multiplies the relative error of its base.
#[derive(Clone, Copy)]
struct PowerFocal {
    gamma: f64,
    /// The weights of positives and negatives.
    alpha: [f64; 2],
}

/// The parts of both, in the letters of the formulas above. `q1` and `c1` are the derivatives of
/// `q` and `c`.
struct Parts<T> {
    a: T,
    q: T,
    q1: T,
    c: T,
    c1: T,
}

impl<T: Math> Parts<T> {
    #[inline(always)]
    fn of(x: T, y: T, alpha: [T; 2], p: Logistic<T>) -> Self {
        let (positive, negative) = (y, T::ONE - y);
        // The weights of the answer with the sign of x, and of the other answer.
        let (right, wrong, sign) = if x > T::ZERO {
            (positive, negative, T::ONE)
        } else {
            (negative, positive, -T::ONE)
        };
        Self {
            a: alpha[0] * positive + alpha[1] * negative,
            q: right * p.small + wrong * p.large,
            q1: sign * ((wrong - right) * (p.large * p.small)),
            c: wrong.weigh(x.abs()) + (right + wrong) * p.cost,
            c1: sign * (wrong * p.large - right * p.small),
        }
    }
}

impl<T: Math> OfLogit<T> for SquaredFocal {
    #[inline(always)]
    fn at(self, x: T, y: T, p: Logistic<T>) -> (T, T) {
        let Parts { a, q, q1, c, c1 } = Parts::of(x, y, self.alpha.map(T::from_f64), p);
        let aq = a * q;
        let slope = q1.weigh(c);
        ((aq * q).weigh(c), aq * (slope + slope + q * c1))
    }
}

impl<T: Float> Pointwise<T> for PowerFocal {
    type Value = f64;

    const WORK: usize = ELEMENTARY;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let (x, y) = (x.to_f64(), y.to_f64());
        let Parts { a, q, q1, c, c1 } = Parts::of(x, y, self.alpha, Logistic::of(x));
        let power = Math::exp(self.gamma * Math::ln(q));
        let power = if self.gamma == 0.0 { 1.0 } else { power };
        // Where q is 0, its power or gamma is 0 too.
        let ratio = if q == 0.0 { 0.0 } else { q1 / q };
        let slope = self.gamma * ratio.weigh(c) + c1;
        ((a * power).weigh(c), T::from_f64(a * power * slope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_two_agrees_with_the_power_function() {
        let alpha = [0.25, 0.75];
        for i in -56..=56 {
            for y in [0.0, 0.3, 1.0] {
                let x = f64::from(i) * 0.5;
                let (value, slope) = PowerFocal { gamma: 2.0, alpha }.at(x, y);
                let squared = SquaredFocal { alpha }.of(x, y);
                assert!((squared.0 / value - 1.0).abs() < 1e-13, "{x} {y}");
                assert!((squared.1 / slope - 1.0).abs() < 1e-12, "{x} {y}");
                let single = SquaredFocal { alpha }.of(x as f32, y as f32);
                assert!((f64::from(single.0) / value - 1.0).abs() < 2e-6, "{x} {y}");
                if y != 0.3 {
                    assert!((f64::from(single.1) / slope - 1.0).abs() < 2e-6, "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn edges() {
        let alpha = [1.0, 1.0];
        for gamma in [0.0, 1e-3, 0.5, 1.0, 2.0, 5.0] {
            let focal = PowerFocal { gamma, alpha };
            for x in [1000.0, f64::INFINITY] {
                for (x, right) in [(x, 1.0), (-x, 0.0)] {
                    let (value, slope) = focal.at(x, right);
                    assert!(value == 0.0 && slope == 0.0, "{gamma} {x}");
                    assert_eq!(focal.at(x, 1.0 - right), (x.abs(), x.signum()));
                }
            }
            let (value, slope) = focal.at(0.0_f64, 1.0);
            let ln_2 = std::f64::consts::LN_2;
            let exact = -0.5_f64.powf(gamma) * (0.5 * gamma * ln_2 + 0.5);
            assert!((value / (0.5_f64.powf(gamma) * ln_2) - 1.0).abs() < 1e-15);
            assert!((slope / exact - 1.0).abs() < 1e-15);
            assert!(focal.at(f64::NAN, 1.0).0.is_nan() && focal.at(f64::NAN, 1.0).1.is_nan());
        }
        let squared = SquaredFocal {
            alpha: [0.25, 0.75],
        };
        assert_eq!(squared.of(f32::INFINITY, 0.0), (f32::INFINITY, 0.75));
        assert_eq!(squared.of(f32::NEG_INFINITY, 0.0).0, 0.0);
    }
}
