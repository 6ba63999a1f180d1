//! Running moments used by several optimizers.

use crate::numeric::float::Float;
use crate::sweep::state::StateSpec;

/// The first moment m of Adam.
pub(super) const EXP_AVG: StateSpec = StateSpec::first_moment("exp_avg");

/// The second moment v of Adam.
pub(super) const EXP_AVG_SQ: StateSpec = StateSpec::second_moment("exp_avg_sq");

/// The running mean of squares of RMSprop and Adadelta.
pub(super) const SQUARE_AVG: StateSpec = StateSpec::second_moment("square_avg");

/// Momentum, which may be enabled at any step.
pub(super) const MOMENTUM_BUFFER: StateSpec =
    StateSpec::first_moment("momentum_buffer").late_start();

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
        let m = self.b1 * m + self.b1c * g;
        let v = self.b2 * v + self.b2c * g * g;
        [m, v]
    }
}

/// Returns `1 - b^t` without cancellation for b^t near 1.
pub(super) fn correction(b: f64, t: u64) -> f64 {
    -(t as f64 * b.ln()).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_corrections_are_accurate_near_one() {
        assert_eq!(correction(0.0, 1), 1.0);
        assert!((correction(0.9, 2) - 0.19).abs() < 1e-16);
        assert!((correction(1.0 - 1e-12, 1) / 1e-12 - 1.0).abs() < 1e-4);
    }
}
