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

/// The number of elements per key: so many that the cost of a key is negligible.
const STRETCH: u64 = 1024;

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

    /// Returns the random numbers of a part that starts `by` elements later.
    #[inline(always)]
    pub fn skip(self, by: usize) -> Self {
        Self {
            start: self.start + by as u64,
            ..self
        }
    }

    /// Returns the numbers from the group that contains this position to the next change of the key.
    #[inline(always)]
    fn draws(self) -> Draws {
        let stretch = self.start / STRETCH;
        let key = mix(self.key.wrapping_add(stretch.wrapping_mul(GOLDEN)));
        let before = (self.start % STRETCH) as u32 / GROUP as u32;
        let first = (key as u32).wrapping_add(before * PAIRS as u32);
        let mut counters = [0; PAIRS];
        for i in 0..PAIRS {
            counters[i] = first.wrapping_add(i as u32);
        }
        Draws {
            counters,
            mask: (key >> 32) as u32,
        }
    }
}

/// Hashes per group, each of which gives the numbers of two elements.
const PAIRS: usize = GROUP / 2;

/// The random numbers of consecutive groups of elements under one key.
#[derive(Clone, Copy, Default)]
struct Draws {
    /// What the next hashes are computed from.
    counters: [u32; PAIRS],
    /// The second half of the key, which separates streams that coincide in the first half.
    mask: u32,
}

impl Draws {
    /// Returns the numbers of the next group, 16 bits each: the halves of `lowbias32` (Wellons,
    /// 2018).
    #[inline(always)]
    fn next(&mut self) -> [u32; GROUP] {
        let mut hashes = [0; PAIRS];
        for i in 0..PAIRS {
            let x = self.counters[i];
            let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
            hashes[i] = (x ^ (x >> 15) ^ self.mask).wrapping_mul(0x846C_A68B);
        }
        for i in 0..PAIRS {
            self.counters[i] = self.counters[i].wrapping_add(PAIRS as u32);
        }
        let mut numbers = [0; GROUP];
        for i in 0..PAIRS {
            let upper = hashes[i] >> 16;
            numbers[i] = upper;
            numbers[i + PAIRS] = (hashes[i] ^ upper) & 0xFFFF;
        }
        numbers
    }
}

/// Sets every element of `to` to `f` of the element of `from` and of its random number.
#[inline(always)]
fn map_with_noise<T: Copy, U>(from: &[T], to: &mut [U], noise: Noise, f: impl Fn(T, u32) -> U) {
    let n = to.len();
    let from = &from[..n];
    let mut start = 0;
    while start < n {
        let here = noise.skip(start);
        let mut draws = here.draws();
        let mut place = (here.start % GROUP as u64) as usize;
        let end = n.min(start + (STRETCH - here.start % STRETCH) as usize);
        while start < end {
            let numbers = draws.next();
            let count = (GROUP - place).min(end - start);
            if count == GROUP {
                let (from, to) = (&from[start..start + GROUP], &mut to[start..start + GROUP]);
                for i in 0..GROUP {
                    to[i] = f(from[i], numbers[i]);
                }
            } else {
                for i in 0..count {
                    to[start + i] = f(from[start + i], numbers[place + i]);
                }
            }
            start += count;
            place = 0;
        }
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
