//! A factor that keeps its digits where the product of its parts is beyond the normal numbers.
//!
//! Gradients of 1e38 clipped to 1e-6 are multiplied by 1e-44, which `f32` holds with two or three
//! bits; a loss scale of 1e-310 has a reciprocal that even `f64` cannot hold. Both are exact as a
//! product with a power of two.

use crate::numeric::float::Float;

/// The power of two taken out of a factor that is too small or too large for `f64`: 2^512.
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

    /// `a / b`, both finite and not 0.
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

    /// It with the other sign.
    #[must_use]
    pub fn negated(self) -> Self {
        Self {
            value: -self.value,
            ..self
        }
    }

    /// The nearest `f64`, which may be 0 or infinite.
    pub fn to_f64(self) -> f64 {
        self.value * self.power
    }

    /// Two numbers to multiply by, one after the other; the second is 1 where one is enough.
    pub fn parts<T: Float>(self) -> [T; 2] {
        let whole = T::from_f64(self.to_f64());
        if whole.is_finite() && whole.abs() >= T::MIN_POSITIVE {
            return [whole, T::ONE];
        }
        // The smallest normal number and its reciprocal, or what `f64` has lacked.
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
    fn factors_beyond_the_normal_numbers_keep_their_digits() {
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
    fn one_factor_where_it_is_enough() {
        assert_eq!(
            ScaleFactor::quotient(1.0, 3.0).parts::<f32>(),
            [1.0 / 3.0, 1.0]
        );
        assert_eq!(ScaleFactor::ONE.negated().parts::<f64>(), [-1.0, 1.0]);
    }
}
