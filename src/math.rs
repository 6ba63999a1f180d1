//! Our own exponential and logarithms: branch-free, so that loops over them vectorize, and built
//! from exactly rounded operations alone, so that every tier gives the same bits.
//!
//! All are within 1.5 ulp. The exponent is taken from the bits of `x * log2(e) + 1.5 * 2^p`: the sum
//! is so large that its last bits are the rounded integer. A cast to an integer would saturate in
//! Rust, and keep the loop scalar.

use crate::float::Float;

/// A [`Float`] with elementary functions.
pub trait Math: Float {
    /// `e^x`. Results below the smallest normal number are 0: in the sums they are for they vanish,
    /// and as operands they would be slow.
    fn exp(self) -> Self;
    /// `e^x` for `x <= 0`, the same bits as [`exp`](Math::exp) with fewer instructions.
    fn exp_nonpositive(self) -> Self;
    /// The natural logarithm: NaN below 0, -inf at 0.
    fn ln(self) -> Self;

    /// `ln(1 + x)` for `x >= 0`, with the relative accuracy that `1 + x` loses.
    #[inline(always)]
    fn ln_1p(self) -> Self {
        let u = Self::ONE + self;
        // What rounding took from u, back as the first term of the series.
        let lost = if self > Self::ONE {
            Self::ONE - (u - self)
        } else {
            self - (u - Self::ONE)
        };
        if self < Self::INFINITY {
            u.ln() + lost / u
        } else {
            self
        }
    }
}

/// `c[0] + c[1] x + c[2] x^2 + ...`
#[inline(always)]
fn polynomial<T: Float, const N: usize>(x: T, c: [T; N]) -> T {
    let mut sum = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = sum * x + c[i];
    }
    sum
}

/// Where `e^x` reaches the smallest normal number, and where it overflows.
const LN_MIN_F32: f32 = -87.336_54;
const LN_MAX_F32: f32 = 88.722_83;

/// `e^x / 2^n` for the `n` nearest to `x log2(e)`, and bits that end in those of `n`.
#[inline(always)]
fn reduced_f32(x: f32) -> (f32, u32) {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    // ln(2) in two parts; the product of the first with any exponent is exact (Cephes).
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // exp(r) = 1 + r + r^2 q(r) for |r| <= ln(2) / 2; q is Cephes' minimax polynomial.
    const Q: [f32; 6] = [
        0.5,
        0.166_666_66,
        4.166_579_6e-2,
        8.333_452e-3,
        1.398_2e-3,
        1.987_569_1e-4,
    ];
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    ((polynomial(r, Q) * (r * r) + r) + 1.0, shifted.to_bits())
}

impl Math for f32 {
    #[inline(always)]
    fn exp(self) -> Self {
        let (y, shifted) = reduced_f32(self);
        // Added to the exponent of y, and not as a factor, which would overflow before y does.
        let y = f32::from_bits(y.to_bits().wrapping_add(shifted << 23));
        let y = if self < LN_MIN_F32 { 0.0 } else { y };
        let y = if self > LN_MAX_F32 { f32::INFINITY } else { y };
        if self.is_nan() { self } else { y }
    }

    #[inline(always)]
    fn exp_nonpositive(self) -> Self {
        let (y, shifted) = reduced_f32(self);
        // As a factor a NaN in y survives by itself.
        let y = y * f32::from_bits((shifted << 23).wrapping_add(1.0_f32.to_bits()));
        if self < LN_MIN_F32 { 0.0 } else { y }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        const SHIFT: f32 = 12_582_912.0;
        const LN_2: [f32; 2] = [0.693_138_1, 9.058_001e-6];
        // ln(1 + f) = f - f^2/2 + s (f^2/2 + s^2 q(s^2)) with s = f / (2 + f) (fdlibm's logf).
        const Q: [f32; 4] = [0.666_666_6, 0.400_009_72, 0.284_987_87, 0.242_790_79];
        const HALF_SQRT_2: u32 = 0x3f35_04f3;
        let subnormal = self < f32::MIN_POSITIVE;
        let x = if subnormal { self * 33_554_432.0 } else { self }; // 2^25
        let bits = x.to_bits().wrapping_sub(HALF_SQRT_2);
        // Arithmetic shift: the exponent k may be negative. Added to the bits of SHIFT it is k too.
        let k = (bits.cast_signed() >> 23).cast_unsigned();
        let k = f32::from_bits(SHIFT.to_bits().wrapping_add(k)) - SHIFT;
        let k = if subnormal { k - 25.0 } else { k };
        let m = f32::from_bits((bits & 0x007f_ffff) + HALF_SQRT_2);
        let f = m - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let half = 0.5 * f * f;
        let y = s * (half + z * polynomial(z, Q)) + k * LN_2[1] - half + f + k * LN_2[0];
        let y = if self > 0.0 { y } else { f32::NAN };
        let y = if self == 0.0 { f32::NEG_INFINITY } else { y };
        if self == f32::INFINITY { self } else { y }
    }
}

/// Where `e^x` reaches the smallest normal number, and where it overflows.
const LN_MIN_F64: f64 = -708.396_418_532_264_1;
const LN_MAX_F64: f64 = 709.782_712_893_384;

/// `e^x / 2^n` for the `n` nearest to `x log2(e)`, and bits that end in those of `n`.
#[inline(always)]
fn reduced_f64(x: f64) -> (f64, u64) {
    const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    // ln(2) in two parts; the product of the first with any exponent is exact (fdlibm).
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    // exp(r) = 1 + r + r^2 q(r): 1/2!, 1/3!, ..., 1/13!. The next term is below 1e-17.
    const Q: [f64; 12] = [
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0,
    ];
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    ((polynomial(r, Q) * (r * r) + r) + 1.0, shifted.to_bits())
}

impl Math for f64 {
    #[inline(always)]
    fn exp(self) -> Self {
        let (y, shifted) = reduced_f64(self);
        // Added to the exponent of y, and not as a factor, which would overflow before y does.
        let y = f64::from_bits(y.to_bits().wrapping_add(shifted << 52));
        let y = if self < LN_MIN_F64 { 0.0 } else { y };
        let y = if self > LN_MAX_F64 { f64::INFINITY } else { y };
        if self.is_nan() { self } else { y }
    }

    #[inline(always)]
    fn exp_nonpositive(self) -> Self {
        let (y, shifted) = reduced_f64(self);
        // As a factor a NaN in y survives by itself.
        let y = y * f64::from_bits((shifted << 52).wrapping_add(1.0_f64.to_bits()));
        if self < LN_MIN_F64 { 0.0 } else { y }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        const SHIFT: f64 = 6_755_399_441_055_744.0;
        const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
        // As for f32, with fdlibm's polynomial for log.
        const Q: [f64; 7] = [
            6.666_666_666_666_735e-1,
            3.999_999_999_940_942e-1,
            2.857_142_874_366_239e-1,
            2.222_219_843_214_978_4e-1,
            1.818_357_216_161_805e-1,
            1.531_383_769_920_937_3e-1,
            1.479_819_860_511_658_6e-1,
        ];
        const HALF_SQRT_2: u64 = 0x3fe6_a09e_667f_3bcd;
        let subnormal = self < f64::MIN_POSITIVE;
        let x = if subnormal {
            self * 18_014_398_509_481_984.0
        } else {
            self
        }; // 2^54
        let bits = x.to_bits().wrapping_sub(HALF_SQRT_2);
        let k = (bits.cast_signed() >> 52).cast_unsigned();
        let k = f64::from_bits(SHIFT.to_bits().wrapping_add(k)) - SHIFT;
        let k = if subnormal { k - 54.0 } else { k };
        let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + HALF_SQRT_2);
        let f = m - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let half = 0.5 * f * f;
        let y = s * (half + z * polynomial(z, Q)) + k * LN_2[1] - half + f + k * LN_2[0];
        let y = if self > 0.0 { y } else { f64::NAN };
        let y = if self == 0.0 { f64::NEG_INFINITY } else { y };
        if self == f64::INFINITY { self } else { y }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Kernel, Tier};

    /// Distance in units of the last place of the exact result.
    fn ulps32(got: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if got == nearest || (got.is_nan() && exact.is_nan()) {
            return 0.0;
        }
        let ulp = f64::from(f32::from_bits(nearest.abs().to_bits() + 1)) - f64::from(nearest.abs());
        (f64::from(got) - exact).abs() / ulp
    }

    fn ulps64(got: f64, close: f64) -> f64 {
        if got == close {
            return 0.0;
        }
        (got - close).abs() / (f64::from_bits(close.abs().to_bits() + 1) - close.abs())
    }

    #[test]
    fn single_precision_is_within_one_and_a_half_ulp() {
        let step = 97; // Every 97th float: 44 million of them.
        let mut worst = [0.0_f64; 3];
        for bits in (0..=u32::MAX).step_by(step) {
            let x = f32::from_bits(bits);
            let wide = f64::from(x);
            let exact = wide.exp();
            let exact = if exact < f64::from(f32::MIN_POSITIVE) {
                0.0
            } else {
                exact
            };
            worst[0] = worst[0].max(ulps32(Math::exp(x), exact));
            if x <= 0.0 {
                assert_eq!(Math::exp_nonpositive(x), Math::exp(x), "{x}");
            }
            worst[1] = worst[1].max(ulps32(Math::ln(x), wide.ln()));
            if x >= 0.0 {
                worst[2] = worst[2].max(ulps32(Math::ln_1p(x), wide.ln_1p()));
            }
        }
        assert!(worst.iter().all(|&ulps| ulps <= 1.5), "{worst:?}");
    }

    #[test]
    fn double_precision_is_within_one_and_a_half_ulp() {
        // The standard library's own error, below 1 ulp, comes on top.
        for i in 0..1_000_000 {
            let x = f64::from(i - 500_000) * 1.415e-3;
            let exact = if x.exp() < f64::MIN_POSITIVE {
                0.0
            } else {
                x.exp()
            };
            assert!(ulps64(Math::exp(x), exact) <= 2.0, "exp {x}");
            if x <= 0.0 {
                assert_eq!(Math::exp_nonpositive(x), Math::exp(x), "{x}");
            }
            let y = 10_f64.powf(x / 2.4);
            assert!(ulps64(Math::ln(y), y.ln()) <= 2.0, "ln {y}");
            assert!(ulps64(Math::ln_1p(y), y.ln_1p()) <= 2.5, "ln_1p {y}");
        }
    }

    #[test]
    fn special_values() {
        fn check<T: Math>(nan: T) {
            let inf = T::INFINITY;
            assert_eq!(T::ZERO.exp(), T::ONE);
            assert_eq!((-inf).exp(), T::ZERO);
            assert_eq!((-inf).exp_nonpositive(), T::ZERO);
            assert_eq!(inf.exp(), inf);
            assert_eq!(T::ONE.ln(), T::ZERO);
            assert_eq!(T::ZERO.ln(), -inf);
            assert_eq!(inf.ln(), inf);
            assert_eq!(inf.ln_1p(), inf);
            for x in [
                nan.exp(),
                nan.ln(),
                nan.ln_1p(),
                (-T::ONE).ln(),
                (-inf).ln(),
            ] {
                assert!(!(x == x), "{x}");
            }
        }
        check(f32::NAN);
        check(f64::NAN);
    }

    struct Apply<T>([T; 256]);

    impl<T: Math> Kernel for Apply<T> {
        type Output = [[T; 256]; 3];

        #[inline(always)]
        fn run(self) -> Self::Output {
            let mut y = [[T::ZERO; 256]; 3];
            for i in 0..256 {
                y[0][i] = self.0[i].exp();
                y[1][i] = self.0[i].abs().ln();
                y[2][i] = self.0[i].abs().ln_1p();
            }
            y
        }
    }

    #[test]
    fn tiers_give_the_same_bits() {
        fn check<T: Math>() {
            let x = std::array::from_fn(|i| T::from_f64((i as f64 - 127.5) * 0.37));
            let baseline = Tier::Baseline.run(Apply::<T>(x));
            for tier in Tier::supported() {
                assert_eq!(tier.run(Apply::<T>(x)), baseline, "{tier}");
            }
        }
        check::<f32>();
        check::<f64>();
    }
}
