//! Squared error: `(x - y)^2`, without a factor one half.

use crate::loss::driver::pointwise::Pointwise;
use crate::numeric::float::Float;

/// The squared error of one element.
#[derive(Clone, Copy, Debug)]
pub struct Mse;

impl<T: Float> Pointwise<T> for Mse {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        // Squared in f64, where no f32 overflows or vanishes.
        let wide = d.to_f64();
        (wide * wide, d + d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(Mse.at(3.0_f64, 1.0), (4.0, 4.0));
        assert_eq!(
            Mse.at(1e30_f32, 0.0).0,
            f64::from(1e30_f32) * f64::from(1e30_f32)
        );
    }
}
