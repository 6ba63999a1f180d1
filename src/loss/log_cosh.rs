//! The logarithm of the hyperbolic cosine: `ln(cosh(x - y))`.

use crate::error::Result;
use crate::hyper::hyper;
use crate::loss::call::{Call, Loss};
use crate::loss::driver::pointwise::{ELEMENTARY, Piecewise};
use crate::loss::signature::Signature;
use crate::numeric::math::Math;

hyper! {
    /// Half the squared error near 0, the absolute error minus `ln(2)` far from 0, and smooth
    /// everywhere.
    pub struct LogCosh;
}

impl Loss for LogCosh {
    const SIGNATURE: Signature = Signature::ELEMENTWISE;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        call.piecewise(*self)
    }
}

impl<T: Math> Piecewise<T> for LogCosh {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    const IN_STAGES: bool = true;

    #[inline(always)]
    fn piece<const N: usize>(
        self,
        _start: usize,
        _n: usize,
        x: &[T; N],
        y: &[T; N],
    ) -> ([T; N], [T; N]) {
        // ln(2) in two parts; a minus the first is exact where the difference is small.
        let ln_2 = [0.693_359_375, -2.121_944_400_546_905_8e-4].map(T::from_f64);
        let quarter = T::from_f64(0.25);
        let (mut d, mut m) = (*x, *x);
        for i in 0..N {
            d[i] = x[i] - y[i];
            let a = d[i].abs();
            m[i] = -(a + a);
        }
        m = T::exp_m1_nonpositive_of(m);
        // Far from 0, cosh(a) = e^a (1 + e^-2a) / 2. Near 0 its logarithm cancels; that of
        // cosh(a) = (1 - tanh(a)^2)^(-1/2) does not.
        let (mut tanh, mut ln) = (m, m);
        for i in 0..N {
            tanh[i] = -m[i] / (T::ONE + T::ONE + m[i]);
            let square = tanh[i] * tanh[i];
            ln[i] = if square > quarter {
                m[i] + T::ONE
            } else {
                -square
            };
        }
        ln = T::ln_1p_small_of(ln);
        for i in 0..N {
            let far = tanh[i] * tanh[i] > quarter;
            ln[i] = if far {
                (d[i].abs() - ln_2[0]) + (ln[i] - ln_2[1])
            } else {
                T::from_f64(-0.5) * ln[i]
            };
            tanh[i] = if d[i] < T::ZERO { -tanh[i] } else { tanh[i] };
        }
        (ln, tanh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_cosh<T: Math>(x: T, y: T) -> (T, T) {
        let ([value], [slope]) = LogCosh.piece(0, 1, &[x], &[y]);
        (value, slope)
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri gives tanh and ln_1p random errors of some units")]
    fn relative_accuracy_everywhere() {
        for i in -300..130 {
            let a = 1.1_f64.powi(i);
            // Below 1e-4 the series has a relative error of 1e-16.
            let exact = if a < 1e-4 {
                0.5 * a * a * (1.0 - a * a / 6.0)
            } else {
                a + (0.5 * (-2.0 * a).exp_m1()).ln_1p()
            };
            let (value, slope) = log_cosh(a, 0.0);
            assert!((value / exact - 1.0).abs() < 1e-11, "{a}");
            assert!((slope / a.tanh() - 1.0).abs() < 1e-15, "{a}");
            assert_eq!(log_cosh(0.0, a), (value, -slope));
            let single = log_cosh(a as f32, 0.0);
            assert!((f64::from(single.0) / exact - 1.0).abs() < 1e-6, "{a}");
            assert!((f64::from(single.1) / slope - 1.0).abs() < 4e-7, "{a}");
        }
        assert_eq!(log_cosh(f32::INFINITY, 0.0), (f32::INFINITY, 1.0));
        assert!(log_cosh(f32::NAN, 0.0).0.is_nan() && log_cosh(f32::NAN, 0.0).1.is_nan());
    }
}
