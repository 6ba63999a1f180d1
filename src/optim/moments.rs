//! The running moments that the Adam family shares.

use crate::numeric::float::Float;

/// `m = b1 m + (1 - b1) g` and `v = b2 v + (1 - b2) g^2`; `b1c` is 1 - b1.
#[derive(Clone, Copy)]
pub(super) struct Moments<T> {
    b1: T,
    b1c: T,
    b2: T,
    b2c: T,
}

impl<T: Float> Moments<T> {
    pub(super) fn new([b1, b2]: [f64; 2]) -> Self {
        Self {
            b1: T::from_f64(b1),
            b1c: T::from_f64(1.0 - b1),
            b2: T::from_f64(b2),
            b2c: T::from_f64(1.0 - b2),
        }
    }

    #[inline(always)]
    pub(super) fn advance(&self, g: T, [m, v]: [T; 2]) -> [T; 2] {
        let m = (self.b1 * m + self.b1c * g).flush();
        // Where m is not 0 a subnormal v still counts against a tiny eps.
        let v = (self.b2 * v + self.b2c * g * g).flush_where(m == T::ZERO);
        [m, v]
    }
}

/// `1 - b^t`, without the cancellation where b^t is near 1.
pub(super) fn correction(b: f64, t: u64) -> f64 {
    -(t as f64 * b.ln()).exp_m1()
}

/// What a state array is, where it is a running mean that a few bits can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A mean of numbers of either sign.
    Signed,
    /// A mean of squares.
    Square,
}

/// Whether the state array of this name is a moment. Iterates, first parameters, step sizes, factors
/// of matrices and sums that only grow are none.
pub fn moment(name: &str) -> Option<Moment> {
    match name {
        "exp_avg" | "exp_avg_fast" | "exp_avg_slow" | "momentum_buffer" | "grad_avg" => {
            Some(Moment::Signed)
        }
        "exp_avg_sq" | "max_exp_avg_sq" | "square_avg" | "acc_delta" | "exp_inf" => {
            Some(Moment::Square)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections() {
        assert_eq!(correction(0.0, 1), 1.0);
        assert!((correction(0.9, 2) - 0.19).abs() < 1e-16);
        assert!((correction(1.0 - 1e-12, 1) / 1e-12 - 1.0).abs() < 1e-4);
    }
}
