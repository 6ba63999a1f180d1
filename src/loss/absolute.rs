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
        if d.abs() < delta {
            (0.5 * wide * wide, d)
        } else {
            (wide_delta * (wide - 0.5 * wide_delta), delta * d.sign())
        }
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
        call.pointwise(*self)
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
