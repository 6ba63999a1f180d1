//! 16-bit floating-point formats, by integer arithmetic on the bits of `f32`.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::{GROUP, Rounding, map_with_noise};
use crate::exec::isa::{Kernel, Tier};
use crate::numeric::float::Float;

/// A 16-bit format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// IEEE 754 binary16: 11 significant bits, up to 65504.
    F16,
    /// The upper half of an `f32`: 8 significant bits and the range of `f32`.
    Bf16,
}

/// Bits of an `f32`: the sign, infinity, and the quiet bit of a NaN.
const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7F80_0000;
const QUIET: u32 = 0x0040_0000;

/// The conversions of a format.
pub(super) trait Format: Copy {
    /// Converts to `f32`, which is exact.
    fn load(self, half: u16) -> f32;
    /// Rounds to nearest, ties to even.
    fn nearest(self, x: f32) -> u16;
    /// Rounds up or down by 16 random bits. Rounds to nearest above the largest finite number.
    fn stochastic(self, x: f32, number: u32) -> u16;
}

/// Returns the number to add to `bits` so that truncating the last `dropped` bits rounds to
/// nearest, ties to even.
#[inline(always)]
fn half_unit(bits: u32, dropped: u32) -> u32 {
    (1 << (dropped - 1)) - 1 + (bits >> dropped & 1)
}

#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Bf16 {
    /// The largest finite number.
    const MAX: u32 = 0x7F7F_0000;

    /// Returns the upper half of `bits + addend`. A carry into the exponent may reach infinity.
    #[inline(always)]
    fn upper(bits: u32, addend: u32) -> u16 {
        let sum = bits.wrapping_add(addend);
        let nan = f32::from_bits(bits).is_nan();
        ((if nan { bits | QUIET } else { sum }) >> 16) as u16
    }

    /// Converts a group, as [`Format::load`] does, but leaves NaN to the arithmetic that follows,
    /// which makes it quiet.
    #[inline(always)]
    pub(super) fn widen(halves: &[u16; GROUP]) -> [f32; GROUP] {
        let mut wide = [0.0; GROUP];
        for i in 0..GROUP {
            wide[i] = f32::from_bits(u32::from(halves[i]) << 16);
        }
        wide
    }

    /// Rounds a group, as [`Format::stochastic`] does. One test of the whole group replaces the
    /// selections of each element for NaN and for numbers beyond the largest.
    #[inline(always)]
    pub(super) fn narrow(x: &[f32; GROUP], numbers: &[u16; GROUP], to: &mut [u16; GROUP]) {
        if !Self::are_within(x) {
            // The address of a copy, so that the numbers themselves stay in registers.
            let copy = *x;
            return Self::narrow_any(&copy, numbers, to);
        }
        for i in 0..GROUP {
            to[i] = (x[i].to_bits().wrapping_add(u32::from(numbers[i])) >> 16) as u16;
        }
    }

    /// Rounds a group to nearest, as [`Format::nearest`] does, with one test for NaN.
    #[inline(always)]
    pub(super) fn narrow_to_nearest(x: &[f32; GROUP], to: &mut [u16; GROUP]) {
        if !Self::are_within(x) {
            let copy = *x;
            return Self::narrow_any_to_nearest(&copy, to);
        }
        for i in 0..GROUP {
            let bits = x[i].to_bits();
            to[i] = (bits.wrapping_add(half_unit(bits, 16)) >> 16) as u16;
        }
    }

    /// Returns whether no number is NaN or beyond the largest.
    #[inline(always)]
    fn are_within(x: &[f32; GROUP]) -> bool {
        let mut within = 1;
        for i in 0..GROUP {
            // False for NaN.
            within &= u32::from(x[i].abs() <= f32::from_bits(Self::MAX));
        }
        within != 0
    }

    /// As [`narrow`](Self::narrow), for groups that it does not round itself.
    #[cold]
    #[inline(never)]
    fn narrow_any(x: &[f32; GROUP], numbers: &[u16; GROUP], to: &mut [u16; GROUP]) {
        for i in 0..GROUP {
            to[i] = Self.stochastic(x[i], u32::from(numbers[i]));
        }
    }

    /// As [`narrow_to_nearest`](Self::narrow_to_nearest), for groups that it does not round itself.
    #[cold]
    #[inline(never)]
    fn narrow_any_to_nearest(x: &[f32; GROUP], to: &mut [u16; GROUP]) {
        for i in 0..GROUP {
            to[i] = Self.nearest(x[i]);
        }
    }
}

impl Format for Bf16 {
    #[inline(always)]
    fn load(self, half: u16) -> f32 {
        let bits = u32::from(half) << 16;
        let nan = bits & !SIGN > INFINITY;
        f32::from_bits(if nan { bits | QUIET } else { bits })
    }

    #[inline(always)]
    fn nearest(self, x: f32) -> u16 {
        let bits = x.to_bits();
        Self::upper(bits, half_unit(bits, 16))
    }

    #[inline(always)]
    fn stochastic(self, x: f32, number: u32) -> u16 {
        let bits = x.to_bits();
        let beyond = bits & !SIGN > Self::MAX;
        // Infinity is the even neighbour of a tie above MAX.
        Self::upper(bits, if beyond { 0x8000 } else { number })
    }
}

#[derive(Clone, Copy)]
struct F16;

impl F16 {
    /// The difference of the exponent biases of `f32` and `f16`, 112.
    const OFFSET: u32 = 112 << 23;
    /// The smallest normal `f16`, 2^-14, and the largest, 65504.
    const MIN_POSITIVE: u32 = 0x3880_0000;
    const MAX: u32 = 0x477F_E000;
    /// 2^16, from which numbers are rounded to infinity.
    const BEYOND: u32 = 0x4780_0000;

    /// Returns the bits of `magnitude + to`. Magnitudes too small to affect the sum are replaced by
    /// 2^-40, since arithmetic on subnormal `f32` is slow.
    #[inline(always)]
    fn shifted(magnitude: u32, to: f32) -> u32 {
        const TINY: u32 = 0x2B80_0000; // 2^-40
        let x = if magnitude > TINY { magnitude } else { TINY };
        (f32::from_bits(x) + to).to_bits()
    }

    /// Returns `finite`, or infinity or NaN for such `bits`, with the sign of `bits`.
    #[inline(always)]
    fn with_sign(bits: u32, finite: u32) -> u16 {
        let magnitude = bits & !SIGN;
        let half = if magnitude >= Self::BEYOND {
            0x7C00
        } else {
            finite
        };
        let half = if magnitude > INFINITY { 0x7E00 } else { half };
        (half | (bits >> 16 & 0x8000)) as u16
    }
}

impl Format for F16 {
    #[inline(always)]
    fn load(self, half: u16) -> f32 {
        const ONE_HALF: u32 = 0x3F00_0000;
        const INFINITY: u32 = 0x7C00 << 13;
        let half = u32::from(half);
        let magnitude = half & 0x7FFF;
        let shifted = magnitude << 13;
        // The last bit of 0.5 has the value 2^-24, the same as that of a subnormal f16.
        let subnormal = f32::from_bits(ONE_HALF + magnitude) - 0.5;
        let normal = shifted + Self::OFFSET;
        let finite = if magnitude < 0x0400 {
            subnormal.to_bits()
        } else {
            normal
        };
        let special = normal + Self::OFFSET;
        let special = if shifted > INFINITY {
            special | QUIET
        } else {
            special
        };
        let bits = if shifted >= INFINITY { special } else { finite };
        f32::from_bits(bits | (half & 0x8000) << 16)
    }

    #[inline(always)]
    fn nearest(self, x: f32) -> u16 {
        let bits = x.to_bits();
        let magnitude = bits & !SIGN;
        // As in `load`. The addition rounds to a multiple of 2^-24.
        let subnormal = Self::shifted(magnitude, 0.5) & 0x007F_FFFF;
        let sum = magnitude.wrapping_add(half_unit(magnitude, 13));
        let normal = sum.wrapping_sub(Self::OFFSET) >> 13;
        let small = magnitude < Self::MIN_POSITIVE;
        Self::with_sign(bits, if small { subnormal } else { normal })
    }

    #[inline(always)]
    fn stochastic(self, x: f32, number: u32) -> u16 {
        let bits = x.to_bits();
        let magnitude = bits & !SIGN;
        // From 2^-14 to 2^-13 the last bit of an f32 has the value 2^-37, 13 bits below that of a
        // subnormal f16. The exponent is subtracted again, because subnormal f16 have none.
        let subnormal = Self::shifted(magnitude, f32::from_bits(Self::MIN_POSITIVE)) - 0x0080_0000;
        let small = magnitude < Self::MIN_POSITIVE;
        let magnitude = if small { subnormal } else { magnitude };
        let beyond = magnitude > Self::MAX;
        let sum = magnitude.wrapping_add(if beyond { 0x1000 } else { number >> 3 });
        Self::with_sign(bits, sum.wrapping_sub(Self::OFFSET) >> 13)
    }
}

/// Converts all elements of `from` to `to`. The conversion is exact, and a NaN becomes quiet.
///
/// # Panics
/// The lengths differ.
pub fn load_half<T: Float>(format: Half, from: &[u16], to: &mut [T], tier: Tier) {
    assert_eq!(from.len(), to.len());
    match format {
        Half::F16 => {
            let done = singles_mut(to).map_or(0, |to| tier.load_f16(from, to));
            tier.run(Load(F16, &from[done..], &mut to[done..]));
        }
        Half::Bf16 => tier.run(Load(Bf16, from, to)),
    }
}

/// Returns the numbers as `f32` if they are.
fn singles_mut<T: Float>(x: &mut [T]) -> Option<&mut [f32]> {
    // SAFETY: `Float` is sealed to `f32` and `f64`, of which only `f32` has 4 bytes.
    (size_of::<T>() == 4).then(|| unsafe { from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) })
}

/// Returns the numbers as `f32` if they are.
fn singles<T: Float>(x: &[T]) -> Option<&[f32]> {
    // SAFETY: as in `singles_mut`.
    (size_of::<T>() == 4).then(|| unsafe { from_raw_parts(x.as_ptr().cast(), x.len()) })
}

struct Load<'a, T, F>(F, &'a [u16], &'a mut [T]);

impl<T: Float, F: Format> Kernel for Load<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(format, from, to) = self;
        let n = to.len();
        let from = &from[..n];
        for i in 0..n {
            to[i] = T::from_f32(format.load(from[i]));
        }
    }
}

/// Rounds all elements of `from` to `to`. Rounding to nearest is that of IEEE 754. The mean error
/// of stochastic rounding is at most 2^-13 units in the last place; it preserves infinities and
/// rounds numbers above the largest finite one to nearest. NaN remains NaN.
///
/// # Panics
/// The lengths differ.
pub fn store_half<T: Float>(
    format: Half,
    from: &[T],
    to: &mut [u16],
    rounding: Rounding,
    tier: Tier,
) {
    assert_eq!(from.len(), to.len());
    match format {
        Half::F16 => {
            let done = match (rounding, singles(from)) {
                (Rounding::Nearest, Some(from)) => tier.store_f16(from, to),
                _ => 0,
            };
            tier.run(Store(F16, &from[done..], &mut to[done..], rounding));
        }
        Half::Bf16 => tier.run(Store(Bf16, from, to, rounding)),
    }
}

struct Store<'a, T, F>(F, &'a [T], &'a mut [u16], Rounding);

impl<T: Float, F: Format> Kernel for Store<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(format, from, to, rounding) = self;
        let n = to.len();
        let from = &from[..n];
        match rounding {
            Rounding::Nearest => {
                for i in 0..n {
                    to[i] = format.nearest(from[i].to_f32());
                }
            }
            Rounding::Stochastic(noise) => map_with_noise(from, to, noise, |x, number| {
                format.stochastic(x.to_f32(), number)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::half::{bf16, f16};

    use super::*;
    use crate::storage::Noise;

    const FORMATS: [Half; 2] = [Half::F16, Half::Bf16];

    fn load<T: Float>(format: Half, from: &[u16], tier: Tier) -> Vec<T> {
        let mut to = vec![T::ZERO; from.len()];
        load_half(format, from, &mut to, tier);
        to
    }

    fn store<T: Float>(format: Half, from: &[T], rounding: Rounding, tier: Tier) -> Vec<u16> {
        let mut to = vec![0; from.len()];
        store_half(format, from, &mut to, rounding, tier);
        to
    }

    /// Returns the result of the crate `half`, which keeps the upper bits of a NaN.
    fn nearest(format: Half, x: f32) -> u16 {
        match format {
            Half::F16 if x.is_nan() => f16::from_f32(x).to_bits() & 0xFE00,
            Half::F16 => f16::from_f32(x).to_bits(),
            Half::Bf16 => bf16::from_f32(x).to_bits(),
        }
    }

    /// Returns numbers around every tie of both formats, with all exponents and signs.
    fn patterns() -> Vec<f32> {
        let around = |x: u32| [x.wrapping_sub(1), x, x.wrapping_add(1)];
        let lows: Vec<u32> = (0..16).flat_map(|i| around(i << 12)).collect();
        let high = |high: u32| lows.iter().map(move |low| (high << 16).wrapping_add(*low));
        (0..1 << 16).flat_map(high).map(f32::from_bits).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn every_half_is_preserved_by_load_and_store() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for tier in Tier::supported() {
            for format in FORMATS {
                let wide = load::<f64>(format, &all, tier);
                for (&bits, x) in all.iter().zip(load::<f32>(format, &all, tier)) {
                    let expected = match format {
                        Half::F16 => f16::from_bits(bits).to_f32(),
                        Half::Bf16 => bf16::from_bits(bits).to_f32(),
                    };
                    assert_eq!(x.to_bits(), expected.to_bits(), "{format:?} {bits:#x}");
                    let wide = wide[usize::from(bits)];
                    assert!(wide == f64::from(x) || wide.is_nan() && x.is_nan());
                    let exact = [
                        Rounding::Nearest,
                        Rounding::Stochastic(Noise::new(u64::from(bits), 1, 2, 3)),
                    ];
                    for rounding in exact {
                        let again = [
                            store(format, &[x], rounding, tier)[0],
                            store(format, &[wide], rounding, tier)[0],
                        ];
                        assert_eq!(again, [nearest(format, x); 2], "{format:?} {x}");
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn single_precision_is_rounded_to_nearest_even() {
        let x = patterns();
        for tier in Tier::supported() {
            for format in FORMATS {
                // Each part has one sign and exponent: one with NaN leaves the others to hardware.
                for x in x.chunks(48) {
                    let stored = store(format, x, Rounding::Nearest, tier);
                    for (&x, bits) in x.iter().zip(stored) {
                        assert_eq!(bits, nearest(format, x), "{tier} {format:?} {x:e}");
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn groups_are_rounded_to_nearest_even() {
        let mut to = [0; GROUP];
        for x in patterns().as_chunks().0 {
            Bf16::narrow_to_nearest(x, &mut to);
            assert_eq!(to, x.map(|x| nearest(Half::Bf16, x)), "{x:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn double_precision_is_rounded_once() {
        for (format, finite) in [(Half::F16, 0x7BFF), (Half::Bf16, 0x7F7F)] {
            let all: Vec<u16> = (0..=finite).collect();
            let mut x = load::<f64>(format, &all, Tier::Baseline);
            // The number that would follow the largest one rounds to infinity.
            x.push(2.0 * x[usize::from(finite)] - x[usize::from(finite) - 1]);
            for lower in 0..=finite {
                let i = usize::from(lower);
                let middle = (x[i] + x[i + 1]) / 2.0;
                let even = lower + (lower & 1);
                for (x, expected) in [
                    (middle.next_down(), lower),
                    (middle, even),
                    (middle.next_up(), lower + 1),
                    (x[i].next_up(), lower),
                    (x[i + 1].next_down(), lower + 1),
                ] {
                    let got = store(format, &[x, -x], Rounding::Nearest, Tier::Baseline);
                    assert_eq!(got, [expected, expected | 0x8000], "{format:?} {x:e}");
                }
            }
            let beyond = [1e300, -1e300, f64::MIN_POSITIVE, f64::INFINITY, 1e-320];
            let infinity = finite + 1;
            let expected = [infinity, infinity | 0x8000, 0, infinity, 0];
            for rounding in [
                Rounding::Nearest,
                Rounding::Stochastic(Noise::new(1, 2, 3, 4)),
            ] {
                let got = store(format, &beyond, rounding, Tier::Baseline);
                assert_eq!(got, expected, "{format:?}");
            }
        }
    }

    /// Returns the mean of `x` rounded with all random words.
    fn mean(format: impl Format, x: f32) -> f64 {
        let sum: f64 = (0..1 << 16)
            .map(|number| f64::from(format.load(format.stochastic(x, number))))
            .sum();
        sum / 65_536.0
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn stochastic_rounding_is_unbiased() {
        let of_f16: &[f32] = &[
            1.0 + 1.0 / 3072.0,
            -0.1,
            65_503.0,
            6.2e-5,
            6.103e-5,
            -3.3e-6,
            1.3e-7,
            4e-8,
            2e-9,
            1e-30,
            f32::MIN_POSITIVE / 3.0,
        ];
        for &x in of_f16 {
            let unit = (f64::from(x).abs().log2().floor().max(-14.0) - 10.0).exp2();
            let error = (mean(F16, x) - f64::from(x)) / unit;
            assert!(error.abs() <= 1.0 / 8192.0, "{x:e}: {error}");
        }
        for x in [1.0 + 1.0 / 300.0, -0.1, 3.38e38, -1e-30, 1e-39, 1e-44] {
            let unit = (f64::from(x).abs().log2().floor().max(-126.0) - 7.0).exp2();
            let error = (mean(Bf16, x) - f64::from(x)) / unit;
            assert!(error.abs() <= 1e-9, "{x:e}: {error}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn stochastic_rounding_above_the_largest_number_is_to_nearest() {
        let noise = Noise::new(1, 2, 3, 4);
        let special = [f32::INFINITY, f32::NAN, f32::MAX];
        for (format, max) in [(Half::F16, 0x7BFF), (Half::Bf16, 0x7F7F)] {
            let max = load::<f32>(format, &[max], Tier::Baseline)[0];
            let x: Vec<f32> = (0..2000)
                .map(|i| f32::from_bits(max.to_bits() + i * 40))
                .chain(special)
                .flat_map(|x| [x, -x])
                .filter(|x| x.is_nan() || x.abs() >= max)
                .collect();
            for tier in Tier::supported() {
                assert_eq!(
                    store(format, &x, Rounding::Stochastic(noise), tier),
                    store(format, &x, Rounding::Nearest, tier),
                );
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn tiers_and_splits_give_the_same_bits() {
        fn check<T: Float>(x: &[T]) {
            let rounding = Rounding::Stochastic(Noise::new(9, 8, 7, 6)).skip(300);
            for format in FORMATS {
                let expected = store(format, x, rounding, Tier::Baseline);
                for tier in Tier::supported() {
                    assert!(store(format, x, rounding, tier) == expected, "{tier}");
                    for cut in [1, 17, 256, 723, 724, 725, 5000] {
                        let (a, b) = x.split_at(cut);
                        let a = store(format, a, rounding, tier);
                        let b = store(format, b, rounding.skip(cut), tier);
                        assert!([a, b].concat() == expected, "{tier} {cut}");
                    }
                }
            }
        }
        let x: Vec<f32> = patterns().into_iter().step_by(31).collect();
        check(&x);
        // Sums of two f32, which need more digits than f32 has.
        let wide = |i: usize| f64::from(x[i]) + f64::from(x[i / 2]) * 1e-9;
        check(&(0..x.len()).map(wide).collect::<Vec<_>>());
    }
}
