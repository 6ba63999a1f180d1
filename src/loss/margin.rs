//! Losses of a score against a label of -1 or 1.

use crate::error::Result;
use crate::hyper::{Kind, NON_NEGATIVE, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::driver::pointwise::{ELEMENTARY, Pointwise};
use crate::loss::logistic::Logistic;
use crate::loss::signature::Signature;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// `max(0, margin - y x)`, or its square; the gradient at the kink is 0.
    #[derive(Copy)]
    pub struct Hinge {
        /// The `y x` from which on the loss is 0.
        margin: f64, NON_NEGATIVE;
        /// Whether the loss is squared.
        squared: bool, Kind::Flag;
    }
}

impl Loss for Hinge {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Float> Pointwise<T> for Hinge {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let gap = T::from_f64(self.margin) - y * x;
        // The comparison is false for NaN, which must stay NaN.
        let gap = if gap <= T::ZERO { T::ZERO } else { gap };
        let wide = gap.to_f64();
        if self.squared {
            (wide * wide, -(y * (gap + gap)))
        } else {
            let slope = if gap == T::ZERO { T::ZERO } else { -y };
            (wide, slope)
        }
    }
}

hyper! {
    /// `ln(1 + exp(-y x))`.
    pub struct SoftMargin;
}

impl Loss for SoftMargin {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Math> Pointwise<T> for SoftMargin {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let z = y * x;
        let p = Logistic::of(z);
        let (value, chance) = if z > T::ZERO {
            (p.cost, p.small)
        } else {
            (p.cost - z, p.large)
        };
        (value, -(y * chance))
    }
}

hyper! {
    /// `x` for the label 1 and `max(0, margin - x)` for -1, where `x` is a distance.
    #[derive(Copy)]
    pub struct HingeEmbedding {
        /// The distance from which on a pair with the label -1 adds nothing.
        margin: f64, NON_NEGATIVE;
    }
}

impl Loss for HingeEmbedding {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Float> Pointwise<T> for HingeEmbedding {
    type Value = T;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let gap = T::from_f64(self.margin) - x;
        let gap = if gap <= T::ZERO { T::ZERO } else { gap };
        let slope = if gap == T::ZERO { T::ZERO } else { -T::ONE };
        if y == T::ONE {
            (x, T::ONE)
        } else {
            (gap, slope)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let hinge = |squared| Hinge {
            margin: 1.0,
            squared,
        };
        assert_eq!(hinge(false).at(0.25_f64, 1.0), (0.75, -1.0));
        assert_eq!(hinge(false).at(1.0_f64, 1.0), (0.0, 0.0));
        assert_eq!(hinge(false).at(2.0_f64, -1.0), (3.0, 1.0));
        assert_eq!(hinge(true).at(2.0_f64, -1.0), (9.0, 6.0));
        assert!(hinge(false).at(f64::NAN, 1.0).0.is_nan());
        let (value, slope) = SoftMargin.at(0.0_f64, 1.0);
        assert!((value - 2.0_f64.ln()).abs() < 1e-15 && slope == -0.5);
        // The gradient of a confident right answer does not vanish.
        assert!((SoftMargin.at(50.0_f32, 1.0).1 / -1.928_749_8e-22 - 1.0).abs() < 1e-6);
        assert!(SoftMargin.at(f32::NAN, 1.0).1.is_nan());
        let pair = HingeEmbedding { margin: 1.0 };
        assert_eq!(pair.at(0.25_f64, 1.0), (0.25, 1.0));
        assert_eq!(pair.at(0.25_f64, -1.0), (0.75, -1.0));
        assert_eq!(pair.at(1.5_f64, -1.0), (0.0, 0.0));
    }
}
