//! Losses of a score against a label of -1 or 1.

use super::logistic::Logistic;
use crate::loss::driver::pointwise::Pointwise;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

/// `max(0, margin - y x)`, or its square; the gradient at the kink is 0.
#[derive(Clone, Copy, Debug)]
pub struct Hinge<T> {
    /// How far a score must be on the right side.
    pub margin: T,
    /// Whether it is squared.
    pub squared: bool,
}

impl<T: Float> Pointwise<T> for Hinge<T> {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let lacking = self.margin - y * x;
        // Not `> 0` turned around: NaN goes on.
        let lacking = if lacking <= T::ZERO { T::ZERO } else { lacking };
        let wide = lacking.to_f64();
        if self.squared {
            (wide * wide, -(y * (lacking + lacking)))
        } else {
            let slope = if lacking == T::ZERO { T::ZERO } else { -y };
            (wide, slope)
        }
    }
}

/// `ln(1 + exp(-y x))`.
#[derive(Clone, Copy, Debug)]
pub struct SoftMargin;

impl<T: Math> Pointwise<T> for SoftMargin {
    type Value = T;

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

/// x for the label 1 and `max(0, margin - x)` for -1: x is a distance.
#[derive(Clone, Copy, Debug)]
pub struct HingeEmbedding<T> {
    /// How far apart what differs must be.
    pub margin: T,
}

impl<T: Float> Pointwise<T> for HingeEmbedding<T> {
    type Value = T;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let lacking = self.margin - x;
        let lacking = if lacking <= T::ZERO { T::ZERO } else { lacking };
        let slope = if lacking == T::ZERO { T::ZERO } else { -T::ONE };
        if y == T::ONE {
            (x, T::ONE)
        } else {
            (lacking, slope)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let hinge = |squared| Hinge {
            margin: 1.0_f64,
            squared,
        };
        assert_eq!(hinge(false).at(0.25, 1.0), (0.75, -1.0));
        assert_eq!(hinge(false).at(1.0, 1.0), (0.0, 0.0));
        assert_eq!(hinge(false).at(2.0, -1.0), (3.0, 1.0));
        assert_eq!(hinge(true).at(2.0, -1.0), (9.0, 6.0));
        assert!(hinge(false).at(f64::NAN, 1.0).0.is_nan());
        let (value, slope) = SoftMargin.at(0.0_f64, 1.0);
        assert!((value - 2.0_f64.ln()).abs() < 1e-15 && slope == -0.5);
        // A confident right answer still has a gradient.
        assert!((SoftMargin.at(50.0_f32, 1.0).1 / -1.928_749_8e-22 - 1.0).abs() < 1e-6);
        assert!(SoftMargin.at(f32::NAN, 1.0).1.is_nan());
        let pair = HingeEmbedding { margin: 1.0_f64 };
        assert_eq!(pair.at(0.25, 1.0), (0.25, 1.0));
        assert_eq!(pair.at(0.25, -1.0), (0.75, -1.0));
        assert_eq!(pair.at(1.5, -1.0), (0.0, 0.0));
    }
}
