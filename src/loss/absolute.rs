//! Absolute error `|x - y|`, and two forms of it that are quadratic near 0.

use crate::error::Result;
use crate::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::driver::pointwise::Pointwise;
use crate::loss::signature::Signature;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// The absolute error of one element; the gradient at 0 is 0.
    pub struct L1;
}

impl Loss for L1 {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Float> Pointwise<T> for L1 {
    type Value = T;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let d = x - y;
        (d.abs(), d.sign())
    }
}

hyper! {
    /// `d^2 / 2` where `|d| < delta`, and `delta (|d| - delta / 2)` elsewhere (Huber, 1964).
    #[derive(Copy)]
    pub struct Huber {
        /// The `|d|` where the linear part begins.
        delta: f64, Kind::Number(Range::Positive);
    }
}

impl Loss for Huber {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Float> Pointwise<T> for Huber {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        let delta = T::from_f64(self.delta);
        let (wide, wide_delta) = (d.abs().to_f64(), delta.to_f64());
        // One formula for both parts: `wide - 0.5 * wide` is exactly `0.5 * wide`. A selection
        // between two takes 1.3 times as long on AVX2.
        let least = if wide < wide_delta { wide } else { wide_delta };
        (least * (wide - 0.5 * least), d.clamp_abs(delta))
    }
}

hyper! {
    /// `d^2 / (2 beta)` where `|d| < beta`, and `|d| - beta / 2` elsewhere (Girshick, 2015).
    #[derive(Copy)]
    pub struct SmoothL1 {
        /// The `|d|` where the linear part begins.
        beta: f64, NON_NEGATIVE;
    }
}

impl Loss for SmoothL1 {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let beta = T::from_f64(self.beta).to_f64();
        // Small enough for both types.
        let binades = 2.0_f64.powi(-100)..2.0_f64.powi(100);
        let is_power = beta.to_bits().trailing_zeros() >= f64::MANTISSA_DIGITS - 1;
        if is_power && binades.contains(&beta) {
            return call.pointwise(SmoothL1ByPower { beta });
        }
        call.pointwise(*self)
    }
}

/// [`SmoothL1`] where `beta` is a power of 2, such as 1: a product with its inverse has the bits of
/// the quotient, which takes twice as long.
#[derive(Clone, Copy)]
struct SmoothL1ByPower {
    beta: f64,
}

impl<T: Float> Pointwise<T> for SmoothL1ByPower {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        let (beta, inverse) = (self.beta, 1.0 / self.beta);
        let wide = d.abs().to_f64();
        let value = if wide < beta {
            0.5 * wide * wide * inverse
        } else {
            wide - 0.5 * beta
        };
        (value, d.clamp_abs(T::from_f64(beta)) * T::from_f64(inverse))
    }
}

impl<T: Float> Pointwise<T> for SmoothL1 {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        let beta = T::from_f64(self.beta);
        let (wide, wide_beta) = (d.abs().to_f64(), beta.to_f64());
        if d.abs() < beta {
            (0.5 * wide * wide / wide_beta, d / beta)
        } else {
            (wide - 0.5 * wide_beta, d.sign())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_with_a_power_of_2_has_the_bits_of_the_quotient() {
        fn check<T: Float>(beta: f64) {
            let (wanted, found) = (SmoothL1 { beta }, SmoothL1ByPower { beta });
            let steps = (0..1000).map(|i| T::from_f64(f64::from(i) / 300.0 * beta));
            let small = [
                T::MIN_POSITIVE,
                T::MIN_POSITIVE * T::from_f64(0.3),
                T::INFINITY,
            ];
            for d in steps.chain(small).flat_map(|d| [d, -d]) {
                let ((a, da), (b, db)) = (wanted.at(d, T::ZERO), found.at(d, T::ZERO));
                let same =
                    a.to_bits() == b.to_bits() && da.to_f64().to_bits() == db.to_f64().to_bits();
                assert!(same, "{d} by {beta}: {a} and {b}, {da} and {db}");
            }
        }
        for beta in [1.0, 0.25, 8.0, 2.0_f64.powi(-100), 2.0_f64.powi(99)] {
            check::<f32>(beta);
            check::<f64>(beta);
        }
    }

    #[test]
    fn huber_has_the_bits_of_a_selection_of_two_parts() {
        fn check<T: Float>(delta: f64) {
            let bound = T::from_f64(delta);
            for d in (-2000..2000).map(|i| T::from_f64(f64::from(i) / 700.0 * delta)) {
                let (wide, wide_bound) = (d.abs().to_f64(), bound.to_f64());
                let wanted = if d.abs() < bound {
                    (0.5 * wide * wide, d)
                } else {
                    (wide_bound * (wide - 0.5 * wide_bound), bound * d.sign())
                };
                assert!(Huber { delta }.at(d, T::ZERO) == wanted, "{d} by {delta}");
            }
        }
        for delta in [1.0, 0.3, 1e-30, 7e20] {
            check::<f32>(delta);
            check::<f64>(delta);
        }
    }

    #[test]
    fn by_hand() {
        assert_eq!(L1.at(1.0_f64, 3.0), (2.0, -1.0));
        assert_eq!(L1.at(3.0_f64, 3.0), (0.0, 0.0));
        let huber = Huber { delta: 2.0 };
        assert_eq!(huber.at(1.0_f64, 0.0), (0.5, 1.0));
        assert_eq!(huber.at(-3.0_f64, 0.0), (4.0, -2.0));
        assert_eq!(huber.at(2.0_f64, 0.0), (2.0, 2.0));
        let smooth = SmoothL1 { beta: 2.0 };
        assert_eq!(smooth.at(1.0_f64, 0.0), (0.25, 0.5));
        assert_eq!(smooth.at(-3.0_f64, 0.0), (2.0, -1.0));
        assert_eq!(SmoothL1 { beta: 0.0 }.at(-3.0_f64, 0.0), (3.0, -1.0));
        assert!(huber.at(f64::NAN, 0.0).0.is_nan() && huber.at(f64::NAN, 0.0).1.is_nan());
    }
}
