//! Storage of arrays in lower precision than that of computation: 16-bit formats, and 8-bit numbers
//! with a scale per block.
//!
//! A driver loads a tile, computes in `f32` or `f64`, and stores the tile. Rounding to nearest
//! loses every change that is smaller than half a unit of the format. Stochastic rounding preserves
//! such changes on average.

pub(crate) mod column;
mod encoding;
mod half;
mod in_place;
mod int8;
pub mod precision;
pub mod view;

pub use encoding::Encoding;
pub use half::{Half, load_half, store_half};
pub use int8::{BLOCK, load_signed, load_squares, store_signed, store_squares};

/// The rounding of numbers that the encoding cannot represent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rounding {
    /// Rounds to nearest, ties to even.
    Nearest,
    /// Rounds up or down at random, without bias.
    Stochastic(Noise),
}

impl Rounding {
    /// Returns whether the random numbers start at a run.
    fn starts_run(self) -> bool {
        match self {
            Self::Nearest => true,
            Self::Stochastic(noise) => noise.starts_run(),
        }
    }

    /// Returns the rounding of a part that starts `by` elements later.
    #[inline(always)]
    pub fn skip(self, by: usize) -> Self {
        match self {
            Self::Nearest => self,
            Self::Stochastic(noise) => Self::Stochastic(noise.skip(by)),
        }
    }
}

/// Random numbers by position, independent of how the array is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    key: u64,
    start: u64,
}

/// Elements whose random numbers are computed from one key: those of a block of 8-bit numbers.
pub(crate) const RUN: usize = BLOCK;

/// The number of elements that are converted together: two registers of `f32` with AVX2, one with
/// AVX-512.
pub(crate) const GROUP: usize = 16;

/// 2^64 divided by the golden ratio, whose multiples are well spread (Steele, Lea and Flood, 2014).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Applies a step of SplitMix64 (Steele, Lea and Flood, 2014): every output bit depends on all
/// input bits.
#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GOLDEN);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Noise {
    /// Creates the random numbers of one buffer in one step.
    pub fn new(seed: u64, parameter: u64, buffer: u64, step: u64) -> Self {
        let mut key = 0;
        for word in [seed, parameter, buffer, step] {
            key = mix(key ^ word);
        }
        Self { key, start: 0 }
    }

    /// Returns whether they start at a run.
    fn starts_run(self) -> bool {
        self.start.is_multiple_of(RUN as u64)
    }

    /// Returns the random numbers of a part that starts `by` elements later.
    #[inline(always)]
    pub fn skip(self, by: usize) -> Self {
        Self {
            start: self.start + by as u64,
            ..self
        }
    }

    /// Returns the numbers of the run that contains this position, 16 random bits each.
    #[inline(always)]
    fn numbers(self) -> [u16; RUN] {
        multiples(self.seeds())
    }

    /// Returns the numbers of the run that contains this position, 12 random bits each and below
    /// them the bits 1000, which an odd factor preserves.
    #[inline(always)]
    fn numbers_of_12_bits(self) -> [u16; RUN] {
        let mut seeds = self.seeds();
        for i in 0..SEEDS {
            seeds[i] = seeds[i] & 0xFFF0 | 8;
        }
        multiples(seeds)
    }

    /// Returns the first numbers of the run that contains this position: the halves of the hash
    /// `lowbias32` (Wellons, 2018).
    #[inline(always)]
    fn seeds(self) -> [u16; SEEDS] {
        let run = self.start / RUN as u64;
        let key = mix(self.key.wrapping_add(run.wrapping_mul(GOLDEN)));
        // The second half of the key separates streams that coincide in the first half.
        let (first, mask) = (key as u32, (key >> 32) as u32);
        let mut seeds = [0; SEEDS];
        for i in 0..SEEDS / 2 {
            let x = first ^ COUNTERS[i];
            let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
            let x = (x ^ (x >> 15) ^ mask).wrapping_mul(0x846C_A68B);
            seeds[i] = (x >> 16) as u16;
            seeds[i + SEEDS / 2] = (x ^ (x >> 16)) as u16;
        }
        seeds
    }
}

/// The numbers of a run that are hashed: a register of AVX-512, two of AVX2. The others are
/// multiples of them modulo 2^16, which cost one instruction for 16 or 32 numbers. With a hash for
/// every number AdamW takes 1.3 and 1.2 times as long with bfloat16 moments, 1.2 and 1.1 times with
/// moments in 8 bits, and 1.4 and 1.3 times if all arrays are bfloat16 (16 Ki elements in cache,
/// one thread of Ice Lake, AVX2 and AVX-512).
const SEEDS: usize = 32;

/// What the inputs of the hash differ by: multiples of 2^32 divided by the golden ratio.
const COUNTERS: [u32; SEEDS / 2] = {
    let mut counters = [0x9E37_79B9_u32; SEEDS / 2];
    let mut i = 1;
    while i < counters.len() {
        counters[i] = counters[i - 1].wrapping_add(counters[0]);
        i += 1;
    }
    counters
};

/// The factors of the seeds: the powers of 28155. With it the pairs of numbers at any distance are
/// spread evenly (their lattices have shortest vectors of at least 0.59 of the longest possible)
/// and correlated by at most 2e-4, or 0.006 if only 12 bits are random.
const FACTORS: [u16; RUN / SEEDS] = {
    let mut factors = [1; RUN / SEEDS];
    let mut j = 1;
    while j < factors.len() {
        factors[j] = 28_155_u16.wrapping_mul(factors[j - 1]);
        j += 1;
    }
    factors
};

/// Returns the products of all seeds with each factor in turn.
#[inline(always)]
fn multiples(seeds: [u16; SEEDS]) -> [u16; RUN] {
    let mut numbers = [0; RUN];
    for j in 0..RUN / SEEDS {
        for i in 0..SEEDS {
            numbers[j * SEEDS + i] = seeds[i].wrapping_mul(FACTORS[j]);
        }
    }
    numbers
}

/// A value on cache lines of its own, so that no register of it is on two lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Aligned<V>(V);

/// Sets every element of `to` to `f` of the element of `from` and of its random number.
#[inline(always)]
fn map_with_noise<T: Copy, U>(from: &[T], to: &mut [U], noise: Noise, f: impl Fn(T, u32) -> U) {
    let n = to.len();
    let from = &from[..n];
    let mut start = 0;
    while start < n {
        let here = noise.skip(start);
        let place = (here.start % RUN as u64) as usize;
        let count = (RUN - place).min(n - start);
        let numbers = here.numbers();
        let (from, to) = (&from[start..start + count], &mut to[start..start + count]);
        let numbers = &numbers[place..place + count];
        for i in 0..count {
            to[i] = f(from[i], u32::from(numbers[i]));
        }
        start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 1 << 17;

    /// Returns the number at each of the first `n` positions.
    fn words(noise: Noise, n: usize) -> Vec<u32> {
        let mut words = vec![0; n];
        map_with_noise(&vec![(); n], &mut words, noise, |(), number| number);
        words
    }

    /// Returns `n` numbers in (-0.5, 0.5).
    fn numbers(noise: Noise, n: usize) -> Vec<f64> {
        let scaled = |number| (f64::from(number) + 0.5) / 65_536.0 - 0.5;
        words(noise, n).into_iter().map(scaled).collect()
    }

    /// Returns the mean of products in standard deviations of the mean for independent numbers.
    fn correlation(x: &[f64], y: &[f64]) -> f64 {
        let n = x.len().min(y.len());
        let sum: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
        sum / (n as f64).sqrt() * 12.0
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn numbers_are_uniform_and_independent() {
        let noise = Noise::new(1, 2, 3, 4);
        let x = numbers(noise, N);
        let sum: f64 = x.iter().sum();
        assert!(sum.abs() < 4.0 * (N as f64 / 12.0).sqrt(), "{sum}");
        let mut counts = [0_u32; 256];
        for x in &x {
            counts[((x + 0.5) * 256.0) as usize] += 1;
        }
        // 255 degrees of freedom: a standard deviation of 22.6.
        let mean = (N / 256) as f64;
        let square = |count: u32| (f64::from(count) - mean).powi(2) / mean;
        let chi_squared: f64 = counts.into_iter().map(square).sum();
        assert!((160.0..350.0).contains(&chi_squared), "{chi_squared}");
        for lag in (1..=64).chain([256, 1023, 1024, 1025, 4096]) {
            let value = correlation(&x, &x[lag..]);
            assert!(value.abs() < 4.0, "{value} at {lag}");
        }
        for bit in 0..16 {
            let ones = x
                .iter()
                .filter(|&x| ((x + 0.5) * 65_536.0) as u32 >> bit & 1 == 1);
            let off = ones.count() as f64 - N as f64 / 2.0;
            assert!(off.abs() < 2.0 * (N as f64).sqrt(), "bit {bit}: {off}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn every_part_of_the_key_affects_the_numbers() {
        let mut streams = vec![numbers(Noise::new(0, 0, 0, 0), N)];
        for shift in [0, 1, 31, 32, 63] {
            for part in 0..4 {
                let mut key = [0; 4];
                key[part] = 1 << shift;
                let [seed, parameter, buffer, step] = key;
                streams.push(numbers(Noise::new(seed, parameter, buffer, step), N));
            }
        }
        for i in 0..streams.len() {
            for j in 0..i {
                let value = correlation(&streams[i], &streams[j]);
                assert!(value.abs() < 4.5, "{value} between {i} and {j}");
            }
        }
    }

    #[test]
    fn numbers_of_12_bits_are_the_middles_of_intervals() {
        let (mut sum, mut counts) = (0.0, [0_u32; 4096]);
        let noise = Noise::new(3, 2, 1, 0);
        for run in 0..256 {
            for number in noise.skip(run * RUN).numbers_of_12_bits() {
                assert_eq!(number & 15, 8);
                counts[usize::from(number >> 4)] += 1;
                sum += f64::from(number) / 65_536.0 - 0.5;
            }
        }
        // 65536 numbers: a standard deviation of 74 of the sum.
        assert!(sum.abs() < 300.0, "{sum}");
        assert!(counts.iter().filter(|&&count| count == 0).count() < 4);
    }

    #[test]
    fn a_number_depends_only_on_its_position() {
        let noise = Noise::new(5, 6, 7, 8);
        let all = words(noise, 6000);
        for start in [0, 1, 15, 16, 700, 1023, 1024, 5000] {
            for len in [0, 1, 15, 16, 17, 1000] {
                assert_eq!(words(noise.skip(start), len), all[start..start + len]);
            }
        }
        assert!(all.iter().all(|&number| number < 1 << 16));
    }
}
