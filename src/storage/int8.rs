//! Numbers in 8 bits, as fractions of a scale that the elements of a block share.
//!
//! The encoding has a bounded relative error. It is the segmented companding of telephony (ITU-T
//! G.711), linear near 0 and logarithmic above. A small constant is added to the fraction, which is
//! from 0 to 1, and the code is the difference of the bits of the sum and of the constant, taken as
//! integers, in units of the third bit of the mantissa. It consists of the exponent of the fraction
//! and the first bits of its mantissa. All instruction sets can vectorize this, and no table is
//! needed.

use std::hint::black_box;

use super::{Aligned, GROUP, Rounding};
use crate::exec::isa::{Kernel, Tier};
use crate::numeric::float::Float;

/// The number of elements that share a scale.
pub const BLOCK: usize = 256;

/// The number of mantissa bits below a code, so that there are 8 codes per octave.
const SHIFT: u32 = 20;

/// The number of random bits used to round a number.
const RANDOM_BITS: u32 = 12;

/// Half of the distance between two thresholds of stochastic rounding. Numbers within this distance
/// of a code are rounded to it, by stochastic rounding on both sides and by rounding up from above.
/// A fraction computed from a loaded number differs by less than 16 from its code, so loading and
/// storing preserves codes.
const MARGIN: u32 = 1 << (SHIFT - RANDOM_BITS - 1);

/// An 8-bit encoding.
pub(super) trait Scheme: Copy {
    /// The type of a code.
    type Code: Copy + Default;
    /// The number of octaves that the codes cover, with 8 codes each.
    const OCTAVES: u32;
    /// The number added to the bits of a sum before truncation, for [`Rounding::Nearest`].
    const NEAREST: u32;
    /// The replacement of a subnormal scale. A subnormal scale of a decaying block could be rounded
    /// to itself in every step.
    const SMALLEST: f32;

    /// The bits of the constant c = 2^-OCTAVES (1 + 1/8 + c). With it 1 + c is `8 * OCTAVES - 1`
    /// codes above c, so the largest value of a block has the last code, which represents the
    /// fraction 1.
    const ORIGIN: u32 =
        ((127 - Self::OCTAVES) << 23) + (1 << SHIFT) + ((9_u64 << SHIFT) >> Self::OCTAVES) as u32;

    /// Returns the scale of a block with this largest absolute value.
    fn scale<T: Float>(self, largest: T) -> f32;
    /// Returns the magnitude of `x` as a fraction of the scale, given the reciprocal of the scale.
    fn share<T: Float>(self, x: T, reciprocal: f32) -> f32;
    /// Returns the code of `x`, given its magnitude.
    fn code(self, x: f32, magnitude: u32) -> Self::Code;
    /// Returns the magnitude of a code, and its sign as the highest bit.
    fn parts(self, code: Self::Code) -> (u32, u32);
    /// Returns the code in a byte.
    fn from_byte(byte: u8) -> Self::Code;
    /// Returns the byte of a code.
    fn to_byte(code: Self::Code) -> u8;
    /// Returns the number that is this fraction of the scale.
    fn back<T: Float>(self, share: f32, scale: f32) -> T;

    /// Returns the fraction that a code represents.
    #[inline(always)]
    fn value(self, code: Self::Code) -> f32 {
        let (magnitude, sign) = self.parts(code);
        let sum = f32::from_bits(Self::ORIGIN + (magnitude << SHIFT));
        f32::from_bits((sum - f32::from_bits(Self::ORIGIN)).to_bits() | sign)
    }

    /// Returns the number that a byte represents.
    #[inline(always)]
    fn decode<T: Float>(self, byte: u8, scale: f32) -> T {
        self.back(self.value(Self::from_byte(byte)), scale)
    }

    /// Rounds `x` to a code. `rise` is added to the bits below a code before they are truncated.
    #[inline(always)]
    fn round<T: Float>(self, x: T, reciprocal: f32, rise: u32) -> Self::Code {
        let sum = self.share(x, reciprocal) + f32::from_bits(Self::ORIGIN);
        let above = sum.to_bits().wrapping_add(rise.wrapping_sub(Self::ORIGIN));
        self.code(x.to_f32(), above >> SHIFT)
    }
}

/// The encoding of signed numbers.
#[derive(Clone, Copy)]
pub(super) struct Signed;

impl Scheme for Signed {
    type Code = i8;
    const OCTAVES: u32 = 16;
    const NEAREST: u32 = 1 << (SHIFT - 1);
    const SMALLEST: f32 = 0.0;

    #[inline(always)]
    fn scale<T: Float>(self, largest: T) -> f32 {
        largest.to_f32()
    }
    #[inline(always)]
    fn share<T: Float>(self, x: T, reciprocal: f32) -> f32 {
        x.to_f32().abs() * reciprocal
    }
    #[inline(always)]
    fn code(self, x: f32, magnitude: u32) -> i8 {
        let sign = x.to_bits().cast_signed() >> 31;
        ((magnitude.cast_signed() ^ sign) - sign) as i8
    }
    #[inline(always)]
    fn parts(self, code: i8) -> (u32, u32) {
        let wide = i32::from(code);
        (wide.unsigned_abs(), wide.cast_unsigned() & 0x8000_0000)
    }
    #[inline(always)]
    fn from_byte(byte: u8) -> i8 {
        byte.cast_signed()
    }
    #[inline(always)]
    fn to_byte(code: i8) -> u8 {
        code.cast_unsigned()
    }
    #[inline(always)]
    fn back<T: Float>(self, share: f32, scale: f32) -> T {
        T::from_f32(share * scale)
    }
}

/// The encoding of squares. The scale is the square root of the largest square, so its range
/// suffices for the squares of `f64`. There are twice as many octaves as for signed numbers, which
/// gives as many octaves of the roots. [`Rounding::Nearest`] rounds up. A nonzero square is never
/// stored as 0, because optimizers divide by it.
#[derive(Clone, Copy)]
pub(super) struct Squares;

impl Scheme for Squares {
    type Code = u8;
    const OCTAVES: u32 = 32;
    const NEAREST: u32 = (1 << SHIFT) - MARGIN;
    const SMALLEST: f32 = f32::MIN_POSITIVE;

    #[inline(always)]
    fn scale<T: Float>(self, largest: T) -> f32 {
        largest.sqrt().to_f32()
    }
    #[inline(always)]
    fn share<T: Float>(self, x: T, reciprocal: f32) -> f32 {
        // Multiply twice, because the square of the reciprocal may overflow.
        let reciprocal = T::from_f32(reciprocal);
        (x * reciprocal * reciprocal).to_f32()
    }
    #[inline(always)]
    fn code(self, x: f32, magnitude: u32) -> u8 {
        // The bits of positive numbers are positive integers, those of 0 are 0.
        let least = x.to_bits().cast_signed().min(1);
        magnitude.cast_signed().max(least) as u8
    }
    #[inline(always)]
    fn parts(self, code: u8) -> (u32, u32) {
        (u32::from(code), 0)
    }
    #[inline(always)]
    fn from_byte(byte: u8) -> u8 {
        byte
    }
    #[inline(always)]
    fn to_byte(code: u8) -> u8 {
        code
    }
    #[inline(always)]
    fn back<T: Float>(self, share: f32, scale: f32) -> T {
        let scale = T::from_f32(scale);
        T::from_f32(share) * scale * scale
    }
}

struct Load<'a, T, S: Scheme> {
    scheme: S,
    q: &'a [S::Code],
    scales: &'a [f32],
    to: &'a mut [T],
}

impl<'a, T: Float, S: Scheme> Load<'a, T, S> {
    fn new(scheme: S, q: &'a [S::Code], scales: &'a [f32], to: &'a mut [T]) -> Self {
        assert_eq!(q.len(), to.len());
        assert_eq!(scales.len(), to.len().div_ceil(BLOCK));
        Self {
            scheme,
            q,
            scales,
            to,
        }
    }
}

impl<T: Float, S: Scheme> Kernel for Load<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for block in 0..self.scales.len() {
            let start = block * BLOCK;
            let end = self.to.len().min(start + BLOCK);
            let (q, to) = (&self.q[start..end], &mut self.to[start..end]);
            let scale = self.scales[block];
            for i in 0..to.len() {
                to[i] = self.scheme.back(self.scheme.value(q[i]), scale);
            }
        }
    }
}

struct Store<'a, T, S: Scheme> {
    scheme: S,
    from: &'a [T],
    q: &'a mut [S::Code],
    scales: &'a mut [f32],
    rounding: Rounding,
}

impl<'a, T: Float, S: Scheme> Store<'a, T, S> {
    fn new(
        scheme: S,
        from: &'a [T],
        q: &'a mut [S::Code],
        scales: &'a mut [f32],
        rounding: Rounding,
    ) -> Self {
        assert_eq!(q.len(), from.len());
        assert_eq!(scales.len(), from.len().div_ceil(BLOCK));
        assert!(rounding.starts_run());
        Self {
            scheme,
            from,
            q,
            scales,
            rounding,
        }
    }
}

impl<T: Float, S: Scheme> Kernel for Store<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut encoder = Encoder::NONE;
        for block in 0..self.scales.len() {
            let start = block * BLOCK;
            let end = self.from.len().min(start + BLOCK);
            let mut new = [T::ZERO; BLOCK];
            new[..end - start].copy_from_slice(&self.from[start..end]);
            let rounding = self.rounding.skip(start);
            self.scales[block] = encoder.start(self.scheme, &mut new, rounding);
            let mut bytes = [[0; GROUP]; BLOCK / GROUP];
            encoder.groups(self.scheme, &new, &mut bytes);
            for (q, byte) in self.q[start..end].iter_mut().zip(bytes.as_flattened()) {
                *q = S::from_byte(*byte);
            }
        }
    }
}

/// The rounding of the numbers of a block to codes.
#[derive(Clone, Copy)]
pub(super) struct Encoder {
    /// The reciprocal of the scale.
    reciprocal: f32,
    /// For each element what is added to the bits below a code before they are truncated, in units
    /// of [`RISE`].
    rises: Aligned<[u16; BLOCK]>,
}

/// The bits below a rise.
const RISE: u32 = SHIFT - 16;

impl Encoder {
    /// What precedes the first block.
    pub(super) const NONE: Self = Self {
        reciprocal: 0.0,
        rises: Aligned([0; BLOCK]),
    };

    /// Prepares the rounding of a block and returns its scale. The scale of a block with an
    /// infinity or a NaN is NaN, so that all its values are loaded as NaN, and its codes are 0.
    #[inline(always)]
    pub(super) fn start<T: Float, S: Scheme>(
        &mut self,
        scheme: S,
        block: &mut [T; BLOCK],
        rounding: Rounding,
    ) -> f32 {
        self.rises.0 = match rounding {
            Rounding::Nearest => [(S::NEAREST >> RISE) as u16; BLOCK],
            Rounding::Stochastic(noise) => noise.numbers_of_12_bits(),
        };
        let scale = scheme.scale(T::largest(block));
        let scale = if scale > 0.0 && scale < f32::MIN_POSITIVE {
            S::SMALLEST
        } else {
            scale
        };
        if scale > 0.0 && scale.is_finite() {
            self.reciprocal = 1.0 / scale;
            return scale;
        }
        *block = [T::ZERO; BLOCK];
        self.reciprocal = 0.0;
        if scale == 0.0 { 0.0 } else { f32::NAN }
    }

    /// Rounds a group of the block.
    #[inline(always)]
    pub(super) fn group<T: Float, S: Scheme>(
        &self,
        scheme: S,
        block: &[T; BLOCK],
        index: usize,
        to: &mut [u8; GROUP],
    ) {
        let group: &[T; GROUP] = &block.as_chunks().0[index];
        let rises: &[u16; GROUP] = &self.rises.0.as_chunks().0[index];
        for i in 0..GROUP {
            let rise = u32::from(rises[i]) << RISE;
            to[i] = S::to_byte(scheme.round(group[i], self.reciprocal, rise));
        }
    }

    /// Rounds the whole block.
    #[inline(always)]
    pub(super) fn groups<T: Float, S: Scheme>(
        &self,
        scheme: S,
        block: &[T; BLOCK],
        to: &mut [[u8; GROUP]],
    ) {
        for index in 0..to.len() {
            // LLVM would unroll a loop over known indices, or load a number of each group at a
            // time.
            let index = black_box(index);
            self.group(scheme, block, index, &mut to[index]);
        }
    }
}

/// Loads signed numbers: the fraction that a code represents, times the scale. All numbers of a
/// block whose scale is NaN are NaN.
///
/// # Panics
/// The lengths differ, or the number of scales is not one per block.
pub fn load_signed<T: Float>(q: &[i8], scales: &[f32], to: &mut [T], tier: Tier) {
    tier.run(Load::new(Signed, q, scales, to));
}

/// Stores signed numbers (first moments) as fractions of the largest absolute value of the block,
/// which is the scale. The relative error of numbers above 1e-4 of the scale is at most 1/7, or
/// 1/14 with rounding to nearest. The scale of a block of zeros is 0, as is a scale that would be a
/// subnormal `f32`. The scale of a block with an infinity or a NaN is NaN.
///
/// # Panics
/// The lengths differ, the number of scales is not one per block, or the position of the first
/// random number is not a multiple of [`BLOCK`].
pub fn store_signed<T: Float>(
    from: &[T],
    q: &mut [i8],
    scales: &mut [f32],
    rounding: Rounding,
    tier: Tier,
) {
    tier.run(Store::new(Signed, from, q, scales, rounding));
}

/// Loads squares: the fraction that a code represents, times the square of the scale. All numbers
/// of a block whose scale is NaN are NaN.
///
/// # Panics
/// The lengths differ, or the number of scales is not one per block.
pub fn load_squares<T: Float>(q: &[u8], scales: &[f32], to: &mut [T], tier: Tier) {
    tier.run(Load::new(Squares, q, scales, to));
}

/// Stores squares (second moments) as fractions of the largest square of the block, whose square
/// root is the scale. The relative error of numbers above 1e-8 of the largest is at most 1/7, and
/// that of their square roots at most 1/15. [`Rounding::Nearest`] rounds up, so that a quotient by
/// the square root is never too large, except for numbers within 2^-13 above a code, which are
/// rounded to it, so that loading and storing preserves codes. No rounding turns a nonzero number
/// into 0. The scales of blocks with zeros, infinities or NaN are as for signed numbers.
///
/// # Panics
/// The lengths differ, the number of scales is not one per block, or the position of the first
/// random number is not a multiple of [`BLOCK`].
pub fn store_squares<T: Float>(
    from: &[T],
    q: &mut [u8],
    scales: &mut [f32],
    rounding: Rounding,
    tier: Tier,
) {
    tier.run(Store::new(Squares, from, q, scales, rounding));
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::ops::Range;

    use super::*;
    use crate::storage::Noise;

    type Stored<C> = (Vec<C>, Vec<f32>);

    /// A scheme with functions that load and store whole arrays.
    trait Arrays: Scheme<Code: Debug + PartialEq> {
        fn store<T: Float>(self, x: &[T], rounding: Rounding, tier: Tier) -> Stored<Self::Code> {
            let mut q = vec![Self::Code::default(); x.len()];
            let mut scales = vec![-1.0; x.len().div_ceil(BLOCK)];
            tier.run(Store::new(self, x, &mut q, &mut scales, rounding));
            (q, scales)
        }

        fn load<T: Float>(self, (q, scales): &Stored<Self::Code>, tier: Tier) -> Vec<T> {
            let mut x = vec![T::ZERO; q.len()];
            tier.run(Load::new(self, q, scales, &mut x));
            x
        }
    }

    impl Arrays for Signed {}
    impl Arrays for Squares {}

    fn stochastic() -> Rounding {
        Rounding::Stochastic(Noise::new(4, 3, 2, 1))
    }

    /// Returns numbers of both signs whose magnitudes span about 3 powers of 10.
    fn numbers<T: Float>(n: usize, scale: f64) -> Vec<T> {
        let at = |i: usize| ((i * i + 7 * i) % 1009) as f64 / 504.5 - 1.0;
        (0..n).map(|i| T::from_f64(at(i).powi(3) * scale)).collect()
    }

    fn squares<T: Float>(n: usize, scale: f64) -> Vec<T> {
        let square = |x: T| T::from_f64(x.to_f64().powi(2));
        numbers(n, scale).into_iter().map(square).collect()
    }

    /// Returns the exact position of a fraction of the scale among the codes, by the definition of
    /// the encoding: linear from one power of two to the next.
    fn place<S: Scheme>(_: S, share: f64) -> f64 {
        let place = |sum: f64| {
            let octave = sum.log2().floor();
            8.0 * (octave + sum / octave.exp2())
        };
        let constant = f64::from(f32::from_bits(S::ORIGIN));
        place(share + constant) - place(constant)
    }

    #[test]
    fn codes_have_even_steps_between_powers_of_two() {
        fn check<S: Scheme>(scheme: S, codes: impl Iterator<Item = S::Code>) {
            let shares: Vec<f64> = codes.map(|code| f64::from(scheme.value(code))).collect();
            assert_eq!((shares[0], shares[shares.len() - 1]), (0.0, 1.0));
            let constant = f64::from(f32::from_bits(S::ORIGIN));
            assert!((1.0..1.2).contains(&(constant * f64::from(S::OCTAVES).exp2())));
            for i in 1..shares.len() {
                assert!((place(scheme, shares[i]) - i as f64).abs() < 1e-4);
                let step = shares[i] - shares[i - 1];
                assert!(step <= (shares[i - 1] + constant) / 8.0 * (1.0 + 1e-6));
            }
        }
        check(Signed, 0..=127);
        check(Squares, 0..=255);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn signed_numbers_are_rounded_to_the_nearest_code() {
        for scale in [1e-37, 1e-20, 1.0, 3.3e38] {
            let x = numbers::<f32>(1000, scale);
            let (q, scales) = Signed.store(&x, Rounding::Nearest, Tier::Baseline);
            for i in 0..x.len() {
                let block = &x[i / BLOCK * BLOCK..x.len().min((i / BLOCK + 1) * BLOCK)];
                let top = block.iter().fold(0.0, |top: f32, x| top.max(x.abs()));
                assert_eq!(scales[i / BLOCK], top);
                let exact = f64::from(x[i]) / f64::from(top);
                let off = f64::from(q[i]).abs() - place(Signed, exact.abs());
                assert!(off.abs() <= 0.5 + 1e-4, "{exact}: {}", q[i]);
                assert!(q[i] == 0 || (q[i] < 0) == (exact < 0.0));
                // 1/16, and half of the value of the smallest code.
                let loaded = f64::from(Signed.value(q[i]));
                assert!((loaded - exact).abs() <= exact.abs() / 16.0 * 1.001 + 1.08e-6);
            }
        }
        // Ties are rounded up. From 16 to 32, with a scale of 32, the steps are 2.
        let ties = [32.0_f32, 16.0, 17.0, -19.0, -0.0];
        let (q, _) = Signed.store(&ties, Rounding::Nearest, Tier::Baseline);
        assert_eq!(q, [127, 119, 120, -121, 0]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn squares_are_rounded_up_and_never_to_zero() {
        for scale in [1e-22, 1e-19, 1.0, 1e19] {
            let mut x = squares::<f32>(1000, scale);
            x[500] = 0.0;
            x[501] = f32::from_bits(1);
            let (q, scales) = Squares.store(&x, Rounding::Nearest, Tier::Baseline);
            let (random, _) = Squares.store(&x, stochastic(), Tier::Baseline);
            for i in 0..x.len() {
                let exact = place(
                    Squares,
                    f64::from(x[i]) / f64::from(scales[i / BLOCK]).powi(2),
                );
                let above = f64::from(q[i]) - exact;
                assert!((-2e-4..=1.0).contains(&above), "{exact}: {}", q[i]);
                let off = f64::from(random[i]) - exact;
                assert!(off.abs() <= 1.0, "{exact}: {}", random[i]);
                assert_eq!(q[i] == 0, x[i] == 0.0);
                assert_eq!(random[i] == 0, x[i] == 0.0);
            }
        }
        // Numbers far below the range of f32.
        let (q, scales) = Squares.store(&[1e-60_f64, 1e-120, 0.0], stochastic(), Tier::Baseline);
        assert_eq!((&q[..], scales[0]), (&[255, 1, 0][..], 1e-30_f64.to_f32()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn decaying_blocks_reach_their_smallest_values() {
        let mut m = vec![1e-36_f64; 300];
        let mut v = m.clone();
        for _ in 0..200 {
            m = m.iter().map(|x| x * 0.9).collect();
            v = v.iter().map(|x| x * 0.1).collect();
            m = Signed.load(
                &Signed.store(&m, stochastic(), Tier::Baseline),
                Tier::Baseline,
            );
            let stored = Squares.store(&v, stochastic(), Tier::Baseline);
            v = Squares.load(&stored, Tier::Baseline);
        }
        assert_eq!(m, [0.0; 300]);
        // Squares do not reach 0, because m may be divided by them.
        assert!(v.iter().all(|&x| 0.0 < x && x < 1.5e-76));
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn loading_and_storing_preserves_codes() {
        fn check<S: Arrays>(scheme: S, codes: &[S::Code], exponents: Range<i32>) {
            for i in 0..3000_u32 {
                let exponent = exponents.start + i as i32 % exponents.len() as i32;
                let mantissa = 1.0 + (i.wrapping_mul(0x9E37_79B9) >> 9) as f32 / 8_388_608.0;
                let scale = mantissa * 2.0_f32.powi(exponent);
                let stored = (codes.to_vec(), vec![scale]);
                let noise = Noise::new(u64::from(i), 3, 2, 1);
                for rounding in [Rounding::Nearest, Rounding::Stochastic(noise)] {
                    for tier in Tier::supported() {
                        let x = scheme.load::<f32>(&stored, tier);
                        assert_eq!(scheme.store(&x, rounding, tier), stored, "{scale:e}");
                    }
                    let x = scheme.load::<f64>(&stored, Tier::Baseline);
                    assert_eq!(scheme.store(&x, rounding, Tier::Baseline), stored);
                }
            }
        }
        let signed: Vec<i8> = (-127..=127).collect();
        let unsigned: Vec<u8> = (0..=255).collect();
        // All exponents for which the numbers are normal.
        check(Signed, &signed, -107..128);
        check(Squares, &unsigned, -45..64);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn zeros_have_a_scale_of_zero_and_a_nan_makes_its_block_nan() {
        fn check<S: Arrays, T: Float>(scheme: S, bad: &[T]) {
            for tier in Tier::supported() {
                for n in [1, 255, 256, 300, 700] {
                    for rounding in [Rounding::Nearest, stochastic()] {
                        let mut x = vec![T::ZERO; n];
                        let (q, scales) = scheme.store(&x, rounding, tier);
                        assert_eq!(q, vec![S::Code::default(); n]);
                        assert_eq!(scales, vec![0.0; n.div_ceil(BLOCK)]);
                        assert!(scheme.load::<T>(&(q, scales), tier) == x);
                        for &bad in bad {
                            x[n - 1] = bad;
                            let stored = scheme.store(&x, rounding, tier);
                            let last = (n - 1) / BLOCK * BLOCK;
                            for (i, x) in scheme.load::<T>(&stored, tier).into_iter().enumerate() {
                                assert_eq!(x.is_nan(), i >= last, "{i} of {n}");
                            }
                        }
                    }
                }
            }
        }
        check(Signed, &[f32::NAN, f32::INFINITY, -f32::INFINITY]);
        check(Signed, &[f64::NAN, f64::INFINITY, -1e300]);
        check(Squares, &[f32::NAN, f32::INFINITY]);
        check(Squares, &[f64::NAN, f64::INFINITY]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn stochastic_rounding_is_unbiased() {
        /// Returns the rise for 12 random bits.
        fn rise(bits: u32) -> u32 {
            (bits << 4 | 8) << RISE
        }
        fn check<S: Scheme>(scheme: S, x: f32) {
            // All 4096 rises. The error is at most 1/4096 of the distance between codes.
            let sum: f64 = (0..4096)
                .map(|number| scheme.round(x, 1.0, rise(number)))
                .map(|code| f64::from(scheme.value(code)))
                .sum();
            let error = sum / 4096.0 - f64::from(x);
            let step = (x.abs() + f32::from_bits(S::ORIGIN)) / 8.0;
            assert!(error.abs() <= f64::from(step) / 4096.0, "{x}: {error}");
        }
        for x in [1.0_f32, 0.97, 0.3, 0.0123, 1e-3, 3.3e-5, 1e-5] {
            check(Signed, x);
            check(Signed, -x);
            check(Squares, x);
            check(Squares, x * x);
        }
        // Below the smallest code. Squares are raised to it, so only signed numbers are checked.
        check(Signed, 3e-7);
        assert_eq!([rise(0), rise(4095)], [MARGIN, (1 << SHIFT) - MARGIN]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn tiers_and_splits_give_the_same_bits() {
        fn check<S: Arrays, T: Float>(scheme: S, x: &[T]) {
            for n in (0..70).chain([255, 256, 257, 1023, 1024, 1025, 5000]) {
                let x = &x[..n];
                for rounding in [Rounding::Nearest, stochastic(), stochastic().skip(256)] {
                    let expected = scheme.store(x, rounding, Tier::Baseline);
                    let loaded = scheme.load::<T>(&expected, Tier::Baseline);
                    for tier in Tier::supported() {
                        let stored = scheme.store(x, rounding, tier);
                        assert!(stored == expected, "{tier} {n}");
                        assert!(scheme.load::<T>(&stored, tier) == loaded, "{tier} {n}");
                        for cut in [256, 512, 1024, 4096].into_iter().filter(|&cut| cut <= n) {
                            let mut a = scheme.store(&x[..cut], rounding, tier);
                            let b = scheme.store(&x[cut..], rounding.skip(cut), tier);
                            a.0.extend(b.0);
                            a.1.extend(b.1);
                            assert!(a == expected, "{tier} {cut} of {n}");
                        }
                    }
                }
            }
        }
        check(Signed, &numbers::<f32>(5000, 1e-3));
        check(Signed, &numbers::<f64>(5000, 1e-3));
        check(Squares, &squares::<f32>(5000, 1e-3));
        check(Squares, &squares::<f64>(5000, 1e-3));
    }
}
