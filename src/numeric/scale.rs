//! Factors outside the range of normal numbers.
//!
//! Gradients of 1e38 clipped to 1e-6 are multiplied by 1e-44, for which `f32` has only two or three
//! bits, and the reciprocal of a loss scale of 1e-310 is outside the range of `f64`. Both are
//! accurate as a product with a power of two.

use crate::numeric::float::Float;

/// The power of two that is split off from a factor outside the range of `f64`: 2^512.
const FAR: f64 = f64::from_bits((1023 + 512) << 52);

/// `value * power`, where `power` is a power of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleFactor {
    value: f64,
    power: f64,
}

impl ScaleFactor {
    /// 1.
    pub const ONE: Self = Self {
        value: 1.0,
        power: 1.0,
    };

    /// Returns `a / b`. Both must be finite and not 0.
    pub fn quotient(a: f64, b: f64) -> Self {
        let value = a / b;
        if value.abs() < f64::MIN_POSITIVE {
            Self {
                value: a * FAR / b,
                power: 1.0 / FAR,
            }
        } else if value.is_infinite() {
            Self {
                value: a / FAR / b,
                power: FAR,
            }
        } else {
            Self { value, power: 1.0 }
        }
    }

    /// Returns the factor with the opposite sign.
    #[must_use]
    pub fn negated(self) -> Self {
        Self {
            value: -self.value,
            ..self
        }
    }

    /// Returns the nearest `f64`, which may be 0 or infinite.
    pub fn to_f64(self) -> f64 {
        self.value * self.power
    }

    /// Returns two factors to multiply by one after the other. The second is 1 if one is
    /// sufficient.
    pub fn parts<T: Float>(self) -> [T; 2] {
        let whole = T::from_f64(self.to_f64());
        if whole.is_finite() && whole.abs() >= T::MIN_POSITIVE {
            return [whole, T::ONE];
        }
        // A power of two that is normal in `T`, and at most the one split off in `quotient`.
        let far = (1.0 / T::MIN_POSITIVE.to_f64()).min(FAR);
        let power = if whole.is_finite() { 1.0 / far } else { far };
        let value = self.value * (self.power / power);
        [T::from_f64(power), T::from_f64(value)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_outside_the_range_of_normal_numbers_are_accurate() {
        let [a, b] = ScaleFactor::quotient(1e-6, 2e38).parts::<f32>();
        assert!((f64::from(1e38_f32 * a * b) / 0.5e-6 - 1.0).abs() < 1e-6);
        let [a, b] = ScaleFactor::quotient(1.0, 1e-40).parts::<f32>();
        assert!((f64::from(1e-38_f32 * a * b) / 1e2 - 1.0).abs() < 1e-6);
        let [a, b] = ScaleFactor::quotient(1e-20, 1e300).parts::<f64>();
        assert!((1e300 * a * b / 1e-20 - 1.0).abs() < 1e-15);
        let [a, b] = ScaleFactor::quotient(1.0, 1e-310).parts::<f64>();
        assert!((1e-308 * a * b / 1e2 - 1.0).abs() < 1e-13);
    }

    #[test]
    fn normal_factors_have_one_part() {
        assert_eq!(
            ScaleFactor::quotient(1.0, 3.0).parts::<f32>(),
            [1.0 / 3.0, 1.0]
        );
        assert_eq!(ScaleFactor::ONE.negated().parts::<f64>(), [-1.0, 1.0]);
    }
}
