//! Squared error: `(x - y)^2`, without a factor one half.

use crate::error::Result;
use crate::hyper::hyper;
use crate::loss::call::{Call, Loss};
use crate::loss::driver::pointwise::Pointwise;
use crate::loss::signature::Signature;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// The squared error of one element.
    pub struct Mse;
}

impl Loss for Mse {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.pointwise(*self)
    }
}

impl<T: Float> Pointwise<T> for Mse {
    type Value = f64;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (f64, T) {
        let d = x - y;
        // In f64, where the square of a float32 does not overflow or underflow.
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
