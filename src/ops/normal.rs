//! Counter-based random numbers of the normal distribution. Element i of draw k for a seed is the
//! same number on any tier and thread.

use crate::exec::isa::{self, Kernel};
use crate::exec::pool;
use crate::numeric::float::Float;
use crate::numeric::math::Math;
use crate::storage::view::StorageView;

/// Computes four words from a counter and a key by Philox 4x32 with 10 rounds (Salmon et al.,
/// 2011).
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = product(0xD251_1F53, counter[0]);
        let (high1, low1) = product(0xCD9E_8D57, counter[2]);
        counter = [
            high1 ^ counter[1] ^ key[0],
            low1,
            high0 ^ counter[3] ^ key[1],
            low0,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

/// Returns a number in (0, 1) with 52 random bits: the middle of an interval, so never 0 or 1.
#[inline(always)]
fn uniform(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 12;
    f64::from_bits(0x3FF0_0000_0000_0000 | bits) - (1.0 - f64::EPSILON / 2.0)
}

/// Evaluates a polynomial whose coefficients are given from the highest.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f64; N], x: f64) -> f64 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = sum * x + c;
    }
    sum
}

/// Computes the quantile of the normal distribution at the probability `u` by algorithm AS 241
/// (Wichura, 1988), accurate to about 16 digits.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "as published")]
fn quantile(u: f64) -> f64 {
    let q = u - 0.5;
    let r = 0.180_625 - q * q;
    let middle = q * polynomial(
        [
            2.509_080_928_730_122_672_7e3,
            3.343_057_558_358_812_810_5e4,
            6.726_577_092_700_870_085_3e4,
            4.592_195_393_154_987_145_7e4,
            1.373_169_376_550_946_112_5e4,
            1.971_590_950_306_551_442_7e3,
            1.331_416_678_917_843_774_5e2,
            3.387_132_872_796_366_608_0,
        ],
        r,
    ) / polynomial(
        [
            5.226_495_278_852_854_561_0e3,
            2.872_908_573_572_194_267_4e4,
            3.930_789_580_009_271_061_0e4,
            2.121_379_430_158_659_586_7e4,
            5.394_196_021_424_751_107_7e3,
            6.871_870_074_920_579_082_9e2,
            4.231_333_070_160_091_125_2e1,
            1.0,
        ],
        r,
    );
    let tail = if q < 0.0 { u } else { 1.0 - u };
    let s = (-Math::ln(tail)).sqrt();
    let near = s - 1.6;
    let near = polynomial(
        [
            7.745_450_142_783_414_076_4e-4,
            2.272_384_498_926_918_458_33e-2,
            2.417_807_251_774_506_117_7e-1,
            1.270_458_252_452_368_382_58,
            3.647_848_324_763_204_605_04,
            5.769_497_221_460_691_405_5,
            4.630_337_846_156_545_295_9,
            1.423_437_110_749_683_577_34,
        ],
        near,
    ) / polynomial(
        [
            1.050_750_071_644_416_843_24e-9,
            5.475_938_084_995_344_946e-4,
            1.519_866_656_361_645_719_66e-2,
            1.481_039_764_274_800_745_9e-1,
            6.897_673_349_851_000_045_5e-1,
            1.676_384_830_183_803_849_4,
            2.053_191_626_637_758_821_87,
            1.0,
        ],
        near,
    );
    let far = s - 5.0;
    let far = polynomial(
        [
            2.010_334_399_292_288_132_65e-7,
            2.711_555_568_743_487_578_15e-5,
            1.242_660_947_388_078_438_6e-3,
            2.653_218_952_657_612_309_3e-2,
            2.965_605_718_285_048_912_3e-1,
            1.784_826_539_917_291_335_8,
            5.463_784_911_164_114_369_9,
            6.657_904_643_501_103_777_2,
        ],
        far,
    ) / polynomial(
        [
            2.044_263_103_389_939_785_64e-15,
            1.421_511_758_316_445_888_7e-7,
            1.846_318_317_510_054_681_8e-5,
            7.868_691_311_456_132_591e-4,
            1.487_536_129_085_061_485_25e-2,
            1.369_298_809_227_358_053_4e-1,
            5.998_322_065_558_879_376_9e-1,
            1.0,
        ],
        far,
    );
    let outside = if s <= 5.0 { near } else { far };
    let outside = if q < 0.0 { -outside } else { outside };
    if q.abs() <= 0.425 { middle } else { outside }
}

/// The random numbers of one array in one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The seed.
    pub seed: u64,
    /// The index of the draw.
    pub draw: u64,
    /// The index of the array.
    pub array: u32,
}

impl Draw {
    /// Returns the two numbers of pair `pair`.
    #[inline(always)]
    fn pair(self, pair: u64) -> [f64; 2] {
        // Counters are unique for arrays of up to 2^33 elements.
        let counter = [
            pair as u32,
            self.array ^ ((pair >> 32) as u32).rotate_left(16),
            self.draw as u32,
            (self.draw >> 32) as u32,
        ];
        let [a, b, c, d] = philox(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        [quantile(uniform(a, b)), quantile(uniform(c, d))]
    }
}

/// Adds `scale` times normally distributed numbers to all elements. A scale of 0 writes nothing.
///
/// # Panics
/// `x` is read-only.
pub fn add_normal<T: Float>(x: StorageView<'_, T>, scale: f64, draw: Draw) {
    assert!(x.is_writable(), "x must be writable");
    if scale == 0.0 {
        return;
    }
    let tier = isa::current();
    // A random number costs about as much as ten elements of an AdamW step.
    pool::for_ranges([x.len()], 10.0, |_, range| {
        let f = |from, x: &mut [T]| {
            tier.run(AddNormal {
                x,
                scale,
                draw,
                from,
            });
        };
        // SAFETY: `for_ranges` gives each range once, inside `x` and without overlap. `x` is
        // writable and owned by this function.
        unsafe { x.update(range, tier, f) };
    });
}

struct AddNormal<'a, T> {
    x: &'a mut [T],
    scale: f64,
    draw: Draw,
    from: usize,
}

impl<T: Float> Kernel for AddNormal<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let first = self.from as u64 / 2;
        for i in 0..self.x.len().div_ceil(2) {
            let pair = self.draw.pair(first + i as u64);
            for (x, normal) in self.x[2 * i..].iter_mut().zip(pair) {
                *x = T::from_f64(x.to_f64() + self.scale * normal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::isa::{Tier, with_tier};
    use crate::exec::pool::with_threads;

    #[test]
    fn philox_gives_the_published_answers() {
        // The first known-answer tests of the Random123 distribution.
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn quantiles_are_those_of_tables() {
        for (u, expected) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.841_344_746_068_542_9, 1.0),
            (1e-3, -3.090_232_306_167_813_5),
            (1e-10, -6.361_340_902_404_056),
            (1e-20, -9.262_340_089_798_408),
        ] {
            assert!(
                (quantile(u) - expected).abs() < 2e-15 * expected.abs().max(1.0),
                "{u}"
            );
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn the_moments_are_those_of_the_normal_distribution() {
        let n = 1_000_000;
        let mut x = vec![0.0_f64; n];
        let draw = Draw {
            seed: 1,
            draw: 2,
            array: 3,
        };
        add_normal(StorageView::native(&mut x), 1.0, draw);
        let mean = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>() / n as f64;
        assert!(mean(&|x| x).abs() < 4e-3);
        assert!((mean(&|x| x * x) - 1.0).abs() < 6e-3);
        assert!(mean(&|x| x * x * x).abs() < 2e-2);
        assert!((mean(&|x| x.powi(4)) - 3.0).abs() < 5e-2);
    }

    #[test]
    fn an_element_is_the_same_on_any_tier_and_thread() {
        let draw = Draw {
            seed: u64::MAX,
            draw: 7,
            array: 1,
        };
        let run = |n: usize| {
            let mut x = vec![1.0_f32; n];
            add_normal(StorageView::native(&mut x), 0.1, draw);
            x
        };
        let n = if cfg!(miri) { 601 } else { 70_001 };
        let expected = with_tier(Tier::Baseline, || run(n)).expect("always there");
        for tier in Tier::supported() {
            for (threads, n) in [(1, n), (3, n), (2, 1), (2, n / 2)] {
                let got = with_tier(tier, || with_threads(threads, || run(n)));
                assert!(got.expect("supported") == expected[..n]);
            }
        }
    }
}
