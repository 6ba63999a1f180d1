//! Absolute error `|x - y|`, and its two rounded forms.

use crate::loss::driver::pointwise::Pointwise;
use crate::numeric::float::Float;

/// The absolute error of one element; the gradient at 0 is 0.
#[derive(Clone, Copy, Debug)]
pub struct L1;

impl<T: Float> Pointwise<T> for L1 {
    type Value = T;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        let d = x - y;
        (d.abs(), d.sign())
    }
}

/// `d^2 / 2` where `|d| < delta`, and `delta (|d| - delta / 2)` beyond (Huber, 1964).
#[derive(Clone, Copy, Debug)]
pub struct Huber<T> {
    /// Where the line begins, > 0.
    pub delta: T,
}

impl<T: Float> Pointwise<T> for Huber<T> {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        let (wide, delta) = (d.abs().to_f64(), self.delta.to_f64());
        if d.abs() < self.delta {
            (0.5 * wide * wide, d)
        } else {
            (delta * (wide - 0.5 * delta), self.delta * d.sign())
        }
    }
}

/// `d^2 / (2 beta)` where `|d| < beta`, and `|d| - beta / 2` beyond (Girshick, 2015).
#[derive(Clone, Copy, Debug)]
pub struct SmoothL1<T> {
    /// Where the line begins, >= 0.
    pub beta: T,
}

impl<T: Float> Pointwise<T> for SmoothL1<T> {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        let (wide, beta) = (d.abs().to_f64(), self.beta.to_f64());
        if d.abs() < self.beta {
            (0.5 * wide * wide / beta, d / self.beta)
        } else {
            (wide - 0.5 * beta, d.sign())
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
        let huber = Huber { delta: 2.0_f64 };
        assert_eq!(huber.at(1.0, 0.0), (0.5, 1.0));
        assert_eq!(huber.at(-3.0, 0.0), (4.0, -2.0));
        assert_eq!(huber.at(2.0, 0.0), (2.0, 2.0));
        let smooth = SmoothL1 { beta: 2.0_f64 };
        assert_eq!(smooth.at(1.0, 0.0), (0.25, 0.5));
        assert_eq!(smooth.at(-3.0, 0.0), (2.0, -1.0));
        assert_eq!(SmoothL1 { beta: 0.0_f64 }.at(-3.0, 0.0), (3.0, -1.0));
        assert!(huber.at(f64::NAN, 0.0).0.is_nan() && huber.at(f64::NAN, 0.0).1.is_nan());
    }
}
