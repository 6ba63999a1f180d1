//! Numbers in 8 bits, in units of a scale that the elements of a block share.

use super::Rounding;
use crate::exec::isa::{Kernel, Tier};
use crate::numeric::float::Float;

/// Elements that share a scale.
pub const BLOCK: usize = 256;

/// How a kind of numbers is kept in codes from 0 (or `-TOP`) to `TOP`.
///
/// `TOP * (1 / TOP)` in `f32` is 1 for both, so a block's largest value is loaded to the bit. All
/// others are loaded to within 3 roundings and stored with 2 more, less than 2^-13 of a unit: a code
/// that is loaded and stored again stays, if [`HALF`] is what is added before rounding.
trait Scheme: Copy {
    /// The type of a code.
    type Code: Copy + Default + Into<f32>;
    /// The code of the block's largest value.
    const TOP: f32;
    /// Added to a number of units, it makes rounding to nearest what the scheme wants.
    const SHIFT: f32;

    /// What becomes of a scale below the normal numbers, where it could round to itself for ever as
    /// the block decays.
    const SMALLEST: f32;

    /// What is kept of `x`.
    fn keep<T: Float>(self, x: T) -> f32;
    /// The number of units of what is kept, before rounding.
    fn units(self, kept: f32, units: f32) -> f32;
    /// The last 8 bits.
    fn code(self, bits: u32) -> Self::Code;
    /// What `keep` was given.
    fn back<T: Float>(self, kept: f32) -> T;
}

/// Half a unit, less what arithmetic may be wrong by.
const HALF: f32 = 0.5 - 1.0 / 8192.0;

/// Numbers of both signs.
#[derive(Clone, Copy)]
struct Signed;

impl Scheme for Signed {
    type Code = i8;
    const TOP: f32 = 127.0;
    const SHIFT: f32 = 0.0;
    const SMALLEST: f32 = 0.0;

    #[inline(always)]
    fn keep<T: Float>(self, x: T) -> f32 {
        x.to_f32()
    }
    #[inline(always)]
    fn units(self, _: f32, units: f32) -> f32 {
        units
    }
    #[inline(always)]
    fn code(self, bits: u32) -> i8 {
        bits as i8
    }
    #[inline(always)]
    fn back<T: Float>(self, kept: f32) -> T {
        T::from_f32(kept)
    }
}

/// Squares, by their roots, rounded up. A square that is not 0 is never kept as 0, which would be a
/// divisor of 0.
#[derive(Clone, Copy)]
struct Squares;

impl Scheme for Squares {
    type Code = u8;
    const TOP: f32 = 255.0;
    const SHIFT: f32 = HALF;
    const SMALLEST: f32 = f32::MIN_POSITIVE;

    #[inline(always)]
    fn keep<T: Float>(self, x: T) -> f32 {
        x.sqrt().to_f32()
    }
    #[inline(always)]
    fn units(self, kept: f32, units: f32) -> f32 {
        if (kept > 0.0) & (units < 1.0) {
            1.0
        } else {
            units
        }
    }
    #[inline(always)]
    fn code(self, bits: u32) -> u8 {
        bits as u8
    }
    #[inline(always)]
    fn back<T: Float>(self, kept: f32) -> T {
        let root = T::from_f32(kept);
        root * root
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
                let share = q[i].into() * (1.0 / S::TOP);
                to[i] = self.scheme.back(share * scale);
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
        for block in 0..self.scales.len() {
            let start = block * BLOCK;
            let end = self.from.len().min(start + BLOCK);
            let (from, q) = (&self.from[start..end], &mut self.q[start..end]);
            self.scales[block] = store(self.scheme, from, q, self.rounding.skip(start));
        }
    }
}

/// Stores one block and returns its scale: NaN if a value is infinite or NaN, so that all values
/// will be loaded as NaN.
#[inline(always)]
fn store<T: Float, S: Scheme>(scheme: S, from: &[T], q: &mut [S::Code], rounding: Rounding) -> f32 {
    let n = q.len();
    let from = &from[..n];
    let scale = scheme.keep(T::largest(from)).abs();
    let scale = if scale > 0.0 && scale < f32::MIN_POSITIVE {
        S::SMALLEST
    } else {
        scale
    };
    if scale == 0.0 || !scale.is_finite() {
        for i in 0..n {
            q[i] = S::Code::default();
        }
        return if scale == 0.0 { scale } else { f32::NAN };
    }
    let units = Units::new(scheme, scale);
    match rounding {
        Rounding::Nearest => {
            for i in 0..n {
                q[i] = units.round(from[i], S::SHIFT);
            }
        }
        Rounding::Stochastic(noise) => {
            let mut start = 0;
            while start < n {
                let stretch = noise.skip(start).stretch();
                let end = n.min(start + stretch.len());
                let (from, q) = (&from[start..end], &mut q[start..end]);
                for i in 0..q.len() {
                    q[i] = units.round(from[i], shift(stretch.at(i)));
                }
                start = end;
            }
        }
    }
    scale
}

/// One of 4096 numbers from `-HALF` to `HALF` by the upper bits of a random word.
#[inline(always)]
fn shift(word: u32) -> f32 {
    // The middles of 4096 parts of 1..2, less 1.5.
    f32::from_bits(0x3F80_0400 | (word >> 9 & 0x007F_F800)) - 1.5
}

/// The unit of a block, which takes two factors: the reciprocal of a tiny one is infinite.
#[derive(Clone, Copy)]
struct Units<S> {
    scheme: S,
    lift: f32,
    factor: f32,
}

impl<S: Scheme> Units<S> {
    #[inline(always)]
    fn new(scheme: S, scale: f32) -> Self {
        const LIFT: f32 = 18_446_744_073_709_551_616.0; // 2^64
        let lift = if scale < 1.0 / LIFT { LIFT } else { 1.0 };
        let factor = S::TOP / (scale * lift);
        Self {
            scheme,
            lift,
            factor,
        }
    }

    /// The code for `x`: its number of units plus `shift`, to nearest.
    #[inline(always)]
    fn round<T: Float>(self, x: T, shift: f32) -> S::Code {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: the last bits of the sum are the integer.
        let kept = self.scheme.keep(x);
        let units = self.scheme.units(kept, kept * self.lift * self.factor);
        self.scheme.code((units + shift + ROUND).to_bits())
    }
}

/// Loads signed numbers: `q / 127 * scale`, NaN where the scale is.
///
/// # Panics
/// Lengths differ, or there is not one scale per started block.
pub fn load_signed<T: Float>(q: &[i8], scales: &[f32], to: &mut [T], tier: Tier) {
    tier.run(Load::new(Signed, q, scales, to));
}

/// Stores signed numbers (first moments): `x / scale * 127`, rounded, with the block's largest
/// absolute value as scale. The scale of zeros is 0, and so is one below the normal numbers of
/// `f32`; that of a block with an infinite number or a NaN is NaN.
///
/// # Panics
/// Lengths differ, or there is not one scale per started block.
pub fn store_signed<T: Float>(
    from: &[T],
    q: &mut [i8],
    scales: &mut [f32],
    rounding: Rounding,
    tier: Tier,
) {
    tier.run(Store::new(Signed, from, q, scales, rounding));
}

/// Loads squares: `(q / 255 * scale)^2`, NaN where the scale is.
///
/// # Panics
/// Lengths differ, or there is not one scale per started block.
pub fn load_squares<T: Float>(q: &[u8], scales: &[f32], to: &mut [T], tier: Tier) {
    tier.run(Load::new(Squares, q, scales, to));
}

/// Stores squares (second moments): `sqrt(x) / scale * 255` with the block's largest root as scale.
/// "Nearest" is rounded up, so that a quotient by the root cannot blow up; only numbers within 2^-13
/// of an integer count as that integer, so that what was loaded is stored as it was. Neither way of
/// rounding makes 0 of what is not 0. Scales of zeros, infinities and NaN are as for signed numbers.
///
/// # Panics
/// Lengths differ, or there is not one scale per started block.
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

    use super::*;
    use crate::storage::Noise;

    type Stored<C> = (Vec<C>, Vec<f32>);

    /// One way of keeping numbers, for tests that are the same for both.
    trait Kept: Scheme<Code: Debug + PartialEq> {
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

    impl Kept for Signed {}
    impl Kept for Squares {}

    fn stochastic() -> Rounding {
        Rounding::Stochastic(Noise::new(4, 3, 2, 1))
    }

    /// Numbers of both signs whose magnitudes spread over about 3 powers of 10.
    fn numbers<T: Float>(n: usize, scale: f64) -> Vec<T> {
        let at = |i: usize| ((i * i + 7 * i) % 1009) as f64 / 504.5 - 1.0;
        (0..n).map(|i| T::from_f64(at(i).powi(3) * scale)).collect()
    }

    fn squares<T: Float>(n: usize, scale: f64) -> Vec<T> {
        let square = |x: T| T::from_f64(x.to_f64().powi(2));
        numbers(n, scale).into_iter().map(square).collect()
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
                let exact = f64::from(x[i]) / f64::from(top) * 127.0;
                assert!((f64::from(q[i]) - exact).abs() <= 0.5 + 1e-4, "{exact}");
            }
        }
        // Ties to even: 127 is the scale, so units are 1.
        let ties = [127.0_f32, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5];
        let (q, _) = Signed.store(&ties, Rounding::Nearest, Tier::Baseline);
        assert_eq!(q, [127, 0, 2, 2, 0, -2, -126]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn roots_are_rounded_up_and_never_to_zero() {
        for scale in [1e-22, 1e-19, 1.0, 1e19] {
            let mut x = squares::<f32>(1000, scale);
            x[500] = 0.0;
            x[501] = f32::from_bits(1);
            let (q, scales) = Squares.store(&x, Rounding::Nearest, Tier::Baseline);
            let (random, _) = Squares.store(&x, stochastic(), Tier::Baseline);
            for i in 0..x.len() {
                let exact = f64::from(x[i]).sqrt() / f64::from(scales[i / BLOCK]) * 255.0;
                let above = f64::from(q[i]) - exact;
                assert!((-2e-4..=1.0).contains(&above), "{exact}: {}", q[i]);
                let off = f64::from(random[i]) - exact;
                assert!(off.abs() <= 1.0, "{exact}: {}", random[i]);
                assert_eq!(q[i] == 0, x[i] == 0.0);
                assert_eq!(random[i] == 0, x[i] == 0.0);
            }
        }
        // Far below the range of f32.
        let (q, scales) = Squares.store(&[1e-60_f64, 1e-70, 0.0], stochastic(), Tier::Baseline);
        assert_eq!((&q[..], scales[0]), (&[255, 1, 0][..], 1e-30_f64.to_f32()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn blocks_decay_to_nothing() {
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
        // Not to 0, by which m might yet be divided.
        assert!(v.iter().all(|&x| 0.0 < x && x < 1.5e-76));
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn codes_that_are_loaded_and_stored_stay() {
        fn check<S: Kept>(scheme: S, codes: &[S::Code], base: f32) {
            for i in 0..3000_u32 {
                // All mantissas alike, and exponents to where products become subnormal.
                let scale = (1.0 + (i.wrapping_mul(0x9E37_79B9) >> 9) as f32 / 8_388_608.0)
                    * 2.0_f32.powi(i as i32 % 118 - 59)
                    * base;
                let stored = (codes.to_vec(), vec![scale]);
                for rounding in [Rounding::Nearest, stochastic().skip(i as usize)] {
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
        check(Signed, &signed, 1.0);
        check(Signed, &signed, 1e-18);
        check(Signed, &signed, 1e19);
        check(Squares, &unsigned, 1.0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn zeros_have_no_scale_and_nothing_hides_a_nan() {
        fn check<S: Kept, T: Float>(scheme: S, bad: &[T]) {
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
    fn stochastic_rounding_is_right_on_average() {
        // All shifts there are, on numbers of units in between.
        for x in [0.3_f32, 5.01, -17.75, 126.999, -126.5] {
            let units = Units::new(Signed, 127.0);
            let sum: i32 = (0..4096)
                .map(|word| i32::from(units.round(x, shift(word << 20))))
                .sum();
            let error = f64::from(sum) / 4096.0 - f64::from(x);
            assert!(error.abs() <= 1.0 / 4096.0, "{x}: {error}");
        }
        assert_eq!([shift(0), shift(u32::MAX)], [-HALF, HALF]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn tiers_and_cuts_give_the_same_bits() {
        fn check<S: Kept, T: Float>(scheme: S, x: &[T]) {
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
