//! Exponentials and logarithms without branches, so that loops over them vectorize, and of
//! correctly rounded operations, so that results are bitwise identical on every tier.
//!
//! All errors are below 1.5 ulp; each function states its largest error over all of `f32`. The
//! exponent of the result is taken from the bits of `x * log2(e) + 1.5 * 2^p`: the sum is so large
//! that its last bits are the rounded integer. A cast to an integer saturates in Rust, which
//! prevents vectorization.

use crate::numeric::float::Float;

/// A [`Float`] with elementary functions.
pub trait Math: Float {
    /// Computes `e^x`. Subnormal results are replaced by 0: they are negligible in sums, and slow
    /// as operands. In `f32` within 0.9903 ulp.
    fn exp(self) -> Self;
    /// Computes `e^x` for `x <= 0`, bitwise identical to [`exp`](Math::exp), with fewer
    /// instructions.
    fn exp_nonpositive(self) -> Self;
    /// Computes `e^x - 1` for `x <= 0` without cancellation near 0. In `f32` within 0.9464 ulp.
    fn exp_m1_nonpositive(self) -> Self;
    /// Computes the natural logarithm: NaN below 0, -inf at 0. In `f32` within 0.8399 ulp.
    fn ln(self) -> Self;
    /// Computes `ln(1 + x)` without cancellation near 0. In `f32` within 1.4046 ulp.
    fn ln_1p(self) -> Self;
    /// Computes `ln(1 + x)` for `x` from 0 to 2^24 (2^53 for `f64`), bitwise identical to
    /// [`ln_1p`](Math::ln_1p), with fewer instructions.
    fn ln_1p_nonnegative(self) -> Self;
    /// Computes `ln(1 + x)` for `x` from -1/4 to 1, with half of the instructions. In `f32` within
    /// 1.4046 ulp.
    fn ln_1p_small(self) -> Self;
}

/// Returns the rounding error of `u = 1 + x`, exactly.
#[inline(always)]
fn lost<T: Float>(x: T, u: T) -> T {
    if x > T::ONE {
        T::ONE - (u - x)
    } else {
        x - (u - T::ONE)
    }
}

/// Returns the same as [`lost`], without a comparison (Knuth's sum of two numbers).
#[inline(always)]
fn lost_of_any<T: Float>(x: T, u: T) -> T {
    let rest = u - T::ONE;
    (T::ONE - (u - rest)) + (x - rest)
}

/// Returns `y` for finite `x > 0`, and the logarithm of other `x`.
#[inline(always)]
fn ln_at_ends<T: Float>(x: T, y: T) -> T {
    let nan = T::from_f64(f64::NAN);
    let y = if x > T::ZERO { y } else { nan };
    let y = if x == T::ZERO { -T::INFINITY } else { y };
    if x == T::INFINITY { x } else { y }
}

/// Computes `c[0] + c[1] x + c[2] x^2 + ...`
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

/// `1.5 * 2^23`. The last bits of a sum with it are the other term rounded to an integer.
const SHIFT_F32: f32 = 12_582_912.0;
/// The arguments at which `e^x` is the smallest normal number and at which it overflows.
const LN_MIN_F32: f32 = -87.336_54;
const LN_MAX_F32: f32 = 88.722_83;

/// Returns `e^x / 2^n - 1` for the `n` nearest to `x log2(e)`, and a word whose last bits are `n`.
#[inline(always)]
fn reduced_f32(x: f32) -> (f32, u32) {
    // ln(2) in two parts. The product of the first part and any exponent is exact (Cephes).
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
    let shifted = x * std::f32::consts::LOG2_E + SHIFT_F32;
    let n = shifted - SHIFT_F32;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    (polynomial(r, Q) * (r * r) + r, shifted.to_bits())
}

/// Returns `k` and `f` of `x = 2^k (1 + f)` with `1 + f` from sqrt(1/2) to sqrt(2). `x` is normal
/// and positive.
#[inline(always)]
fn split_f32(x: f32) -> (f32, f32) {
    const HALF_SQRT_2: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(HALF_SQRT_2);
    // The shift is arithmetic, because k may be negative. Adding k to the bits of the shift
    // constant adds k to its value.
    let k = (bits.cast_signed() >> 23).cast_unsigned();
    let k = f32::from_bits(SHIFT_F32.to_bits().wrapping_add(k)) - SHIFT_F32;
    (k, f32::from_bits((bits & 0x007f_ffff) + HALF_SQRT_2) - 1.0)
}

/// Computes `ln(2^k (1 + f))`.
#[inline(always)]
fn ln_of_f32(k: f32, f: f32) -> f32 {
    const LN_2: [f32; 2] = [0.693_138_1, 9.058_001e-6];
    // ln(1 + f) = f - f^2/2 + s (f^2/2 + s^2 q(s^2)) with s = f / (2 + f) (fdlibm's logf).
    const Q: [f32; 4] = [0.666_666_6, 0.400_009_72, 0.284_987_87, 0.242_790_79];
    let s = f / (2.0 + f);
    let z = s * s;
    let half = 0.5 * f * f;
    s * (half + z * polynomial(z, Q)) + k * LN_2[1] - half + f + k * LN_2[0]
}

impl Math for f32 {
    #[inline(always)]
    fn exp(self) -> Self {
        let (y, shifted) = reduced_f32(self);
        let y = y + 1.0;
        // Adds n to the exponent of y. The factor 2^n could overflow when the result does not.
        let y = f32::from_bits(y.to_bits().wrapping_add(shifted << 23));
        let y = if self < LN_MIN_F32 { 0.0 } else { y };
        let y = if self > LN_MAX_F32 { f32::INFINITY } else { y };
        if self.is_nan() { self } else { y }
    }

    #[inline(always)]
    fn exp_nonpositive(self) -> Self {
        let (y, shifted) = reduced_f32(self);
        // The factor 2^n cannot overflow here, and multiplying preserves a NaN.
        let y = (y + 1.0) * f32::from_bits((shifted << 23).wrapping_add(1.0_f32.to_bits()));
        if self < LN_MIN_F32 { 0.0 } else { y }
    }

    #[inline(always)]
    fn exp_m1_nonpositive(self) -> Self {
        let (y, shifted) = reduced_f32(self);
        let power = f32::from_bits((shifted << 23).wrapping_add(1.0_f32.to_bits()));
        // power - 1 is exact unless the sum rounds to -1.
        let y = y * power + (power - 1.0);
        if self < LN_MIN_F32 { -1.0 } else { y }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        let subnormal = self < f32::MIN_POSITIVE;
        let (k, f) = split_f32(if subnormal { self * 33_554_432.0 } else { self }); // 2^25
        let k = if subnormal { k - 25.0 } else { k };
        ln_at_ends(self, ln_of_f32(k, f))
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        let u = 1.0 + self;
        let (k, f) = split_f32(u);
        let unit = f32::from_bits(
            1.0_f32
                .to_bits()
                .wrapping_sub((k + SHIFT_F32).to_bits() << 23),
        );
        // For larger x the rounding error is negligible, and 2^-k may underflow.
        let rest = if self < 33_554_432.0 {
            lost(self, u) * unit
        } else {
            0.0
        };
        ln_at_ends(u, ln_of_f32(k, f + rest))
    }

    #[inline(always)]
    fn ln_1p_nonnegative(self) -> Self {
        let u = 1.0 + self;
        let (k, f) = split_f32(u);
        let bits = (k + SHIFT_F32).to_bits() << 23;
        let unit = f32::from_bits(1.0_f32.to_bits().wrapping_sub(bits));
        // A NaN is in the rounding error.
        ln_of_f32(k, f + lost_of_any(self, u) * unit)
    }

    #[inline(always)]
    fn ln_1p_small(self) -> Self {
        // 1 + f is from sqrt(1/2) to sqrt(2). (x - 1) / 2 is rounded only for x < 1/2.
        let (k, f) = if self > 0.414_213_56 {
            (1.0, (self - 1.0) * 0.5)
        } else {
            (0.0, self)
        };
        ln_of_f32(k, f)
    }
}

/// `1.5 * 2^52`, as [`SHIFT_F32`].
const SHIFT_F64: f64 = 6_755_399_441_055_744.0;
/// The arguments at which `e^x` is the smallest normal number and at which it overflows.
const LN_MIN_F64: f64 = -708.396_418_532_264_1;
const LN_MAX_F64: f64 = 709.782_712_893_384;

/// Returns `e^x / 2^n - 1` for the `n` nearest to `x log2(e)`, and a word whose last bits are `n`.
#[inline(always)]
fn reduced_f64(x: f64) -> (f64, u64) {
    // ln(2) in two parts. The product of the first part and any exponent is exact (fdlibm).
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
    let shifted = x * std::f64::consts::LOG2_E + SHIFT_F64;
    let n = shifted - SHIFT_F64;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    (polynomial(r, Q) * (r * r) + r, shifted.to_bits())
}

/// Returns `k` and `f` of `x = 2^k (1 + f)` with `1 + f` from sqrt(1/2) to sqrt(2). `x` is normal
/// and positive.
#[inline(always)]
fn split_f64(x: f64) -> (f64, f64) {
    const HALF_SQRT_2: u64 = 0x3fe6_a09e_667f_3bcd;
    let bits = x.to_bits().wrapping_sub(HALF_SQRT_2);
    let k = (bits.cast_signed() >> 52).cast_unsigned();
    let k = f64::from_bits(SHIFT_F64.to_bits().wrapping_add(k)) - SHIFT_F64;
    (
        k,
        f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + HALF_SQRT_2) - 1.0,
    )
}

/// Computes `ln(2^k (1 + f))`.
#[inline(always)]
fn ln_of_f64(k: f64, f: f64) -> f64 {
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    // As for f32, with the polynomial of fdlibm's log.
    const Q: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    let s = f / (2.0 + f);
    let z = s * s;
    let half = 0.5 * f * f;
    s * (half + z * polynomial(z, Q)) + k * LN_2[1] - half + f + k * LN_2[0]
}

impl Math for f64 {
    #[inline(always)]
    fn exp(self) -> Self {
        let (y, shifted) = reduced_f64(self);
        let y = y + 1.0;
        // Adds n to the exponent of y. The factor 2^n could overflow when the result does not.
        let y = f64::from_bits(y.to_bits().wrapping_add(shifted << 52));
        let y = if self < LN_MIN_F64 { 0.0 } else { y };
        let y = if self > LN_MAX_F64 { f64::INFINITY } else { y };
        if self.is_nan() { self } else { y }
    }

    #[inline(always)]
    fn exp_nonpositive(self) -> Self {
        let (y, shifted) = reduced_f64(self);
        // The factor 2^n cannot overflow here, and multiplying preserves a NaN.
        let y = (y + 1.0) * f64::from_bits((shifted << 52).wrapping_add(1.0_f64.to_bits()));
        if self < LN_MIN_F64 { 0.0 } else { y }
    }

    #[inline(always)]
    fn exp_m1_nonpositive(self) -> Self {
        let (y, shifted) = reduced_f64(self);
        let power = f64::from_bits((shifted << 52).wrapping_add(1.0_f64.to_bits()));
        // power - 1 is exact unless the sum rounds to -1.
        let y = y * power + (power - 1.0);
        if self < LN_MIN_F64 { -1.0 } else { y }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        let subnormal = self < f64::MIN_POSITIVE;
        let factor = 18_014_398_509_481_984.0; // 2^54
        let (k, f) = split_f64(if subnormal { self * factor } else { self });
        let k = if subnormal { k - 54.0 } else { k };
        ln_at_ends(self, ln_of_f64(k, f))
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        let u = 1.0 + self;
        let (k, f) = split_f64(u);
        let unit = f64::from_bits(
            1.0_f64
                .to_bits()
                .wrapping_sub((k + SHIFT_F64).to_bits() << 52),
        );
        let rest = if self < 18_014_398_509_481_984.0 {
            lost(self, u) * unit
        } else {
            0.0
        };
        ln_at_ends(u, ln_of_f64(k, f + rest))
    }

    #[inline(always)]
    fn ln_1p_nonnegative(self) -> Self {
        let u = 1.0 + self;
        let (k, f) = split_f64(u);
        let bits = (k + SHIFT_F64).to_bits() << 52;
        let unit = f64::from_bits(1.0_f64.to_bits().wrapping_sub(bits));
        // A NaN is in the rounding error.
        ln_of_f64(k, f + lost_of_any(self, u) * unit)
    }

    #[inline(always)]
    fn ln_1p_small(self) -> Self {
        // 1 + f is from sqrt(1/2) to sqrt(2). (x - 1) / 2 is rounded only for x < 1/2.
        let (k, f) = if self > 0.414_213_56 {
            (1.0, (self - 1.0) * 0.5)
        } else {
            (0.0, self)
        };
        ln_of_f64(k, f)
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::exec::isa::{Kernel, Tier};

    /// Returns the error in units in the last place of the exact result.
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

    /// Returns the largest errors of `exp`, `exp_m1_nonpositive`, `ln`, `ln_1p` and `ln_1p_small`
    /// over the `f32` with these bits.
    fn worst_ulps32(bits: impl Iterator<Item = u32>) -> [f64; 5] {
        let mut worst = [0.0_f64; 5];
        for x in bits.map(f32::from_bits) {
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
                worst[1] = worst[1].max(ulps32(Math::exp_m1_nonpositive(x), wide.exp_m1()));
            }
            worst[2] = worst[2].max(ulps32(Math::ln(x), wide.ln()));
            worst[3] = worst[3].max(ulps32(Math::ln_1p(x), wide.ln_1p()));
            if (-0.25..=1.0).contains(&x) {
                worst[4] = worst[4].max(ulps32(Math::ln_1p_small(x), wide.ln_1p()));
            }
        }
        worst
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn single_precision_is_within_one_and_a_half_ulp() {
        let worst = worst_ulps32((0..=u32::MAX).step_by(97)); // 44 million numbers.
        assert!(worst.iter().all(|&ulps| ulps <= 1.5), "{worst:?}");
    }

    #[test]
    #[ignore = "takes minutes: checks every f32"]
    fn all_of_single_precision_is_within_one_and_a_half_ulp() {
        let slice = |high: u32| worst_ulps32((high << 24)..=(high << 24 | 0x00ff_ffff));
        let larger = |a: [f64; 5], b: [f64; 5]| std::array::from_fn(|i| a[i].max(b[i]));
        let worst = (0..256)
            .into_par_iter()
            .map(slice)
            .reduce(|| [0.0; 5], larger);
        println!("exp, exp_m1, ln, ln_1p, ln_1p_small: {worst:.4?} ulp");
        assert!(worst.iter().all(|&ulps| ulps <= 1.5), "{worst:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn double_precision_is_within_one_and_a_half_ulp() {
        // The bounds include the error of the standard library, which is below 1 ulp.
        for i in 0..1_000_000 {
            let x = f64::from(i - 500_000) * 1.415e-3;
            let exact = if x.exp() < f64::MIN_POSITIVE {
                0.0
            } else {
                x.exp()
            };
            assert!(ulps64(Math::exp(x), exact) <= 2.0, "exp {x}");
            let y = 10_f64.powf(x / 2.4);
            assert!(ulps64(Math::ln(y), y.ln()) <= 2.0, "ln {y}");
            for y in [y, -y].into_iter().filter(|y| *y > -1.0) {
                assert!(ulps64(Math::ln_1p(y), y.ln_1p()) <= 2.5, "ln_1p {y}");
            }
            for y in [y, -y].into_iter().filter(|y| (-0.25..=1.0).contains(y)) {
                assert!(
                    ulps64(Math::ln_1p_small(y), y.ln_1p()) <= 2.5,
                    "ln_1p_small {y}"
                );
            }
            for x in [x, -y].into_iter().filter(|x| *x <= 0.0) {
                assert_eq!(Math::exp_nonpositive(x), Math::exp(x), "{x}");
                assert!(
                    ulps64(Math::exp_m1_nonpositive(x), x.exp_m1()) <= 2.5,
                    "exp_m1 {x}"
                );
            }
        }
    }

    #[test]
    fn special_values_are_those_of_ieee_754() {
        fn check<T: Math>(nan: T) {
            let inf = T::INFINITY;
            assert_eq!(T::ZERO.exp(), T::ONE);
            assert_eq!((-inf).exp(), T::ZERO);
            assert_eq!((-inf).exp_nonpositive(), T::ZERO);
            assert_eq!((-inf).exp_m1_nonpositive(), -T::ONE);
            assert_eq!(inf.exp(), inf);
            assert_eq!(T::ONE.ln(), T::ZERO);
            assert_eq!(T::ZERO.ln(), -inf);
            assert_eq!(inf.ln(), inf);
            assert_eq!(inf.ln_1p(), inf);
            assert_eq!((-T::ONE).ln_1p(), -inf);
            for x in [
                nan.exp(),
                nan.exp_nonpositive(),
                nan.exp_m1_nonpositive(),
                nan.ln(),
                nan.ln_1p(),
                nan.ln_1p_small(),
                (-T::ONE - T::ONE).ln_1p(),
                (-T::ONE).ln(),
                (-inf).ln(),
            ] {
                assert!(!(x == x), "{x}");
            }
        }
        check(f32::NAN);
        check(f64::NAN);
    }

    #[test]
    fn ln_1p_nonnegative_has_the_bits_of_ln_1p() {
        let steps = if cfg!(miri) { 300 } else { 300_000 };
        for i in 0..steps {
            // Up to 2^24, and 2^53.
            let share = f64::from(i) / f64::from(steps - 1);
            let single = f32::from_bits((f64::from(16_777_216.0_f32.to_bits()) * share) as u32);
            let double =
                f64::from_bits((9_007_199_254_740_992.0_f64.to_bits() as f64 * share) as u64);
            assert_eq!(
                single.ln_1p_nonnegative().to_bits(),
                Math::ln_1p(single).to_bits(),
                "{single}"
            );
            if double <= 9_007_199_254_740_992.0 {
                assert_eq!(
                    double.ln_1p_nonnegative().to_bits(),
                    Math::ln_1p(double).to_bits(),
                    "{double}"
                );
            }
        }
        assert!(f32::NAN.ln_1p_nonnegative().is_nan() && f64::NAN.ln_1p_nonnegative().is_nan());
    }

    struct Apply<T>([T; 256]);

    impl<T: Math> Kernel for Apply<T> {
        type Output = [[T; 256]; 5];

        #[inline(always)]
        fn run(self) -> Self::Output {
            let mut y = [[T::ZERO; 256]; 5];
            for i in 0..256 {
                y[0][i] = self.0[i].exp();
                y[1][i] = self.0[i].abs().ln();
                y[2][i] = self.0[i].abs().ln_1p();
                y[4][i] = (self.0[i].abs() / (T::ONE + self.0[i].abs())).ln_1p_small();
                y[3][i] = (-self.0[i].abs()).exp_m1_nonpositive();
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
