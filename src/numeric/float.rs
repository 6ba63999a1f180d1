//! A trait for the two types of computation, `f32` and `f64`.
//!
//! It contains only operations that IEEE 754 defines exactly, so that the results of a kernel do
//! not depend on the instructions it is compiled to. There is deliberately no `mul_add`: a fused
//! multiply-add rounds once, and a multiplication with an addition rounds twice.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::exec::isa;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The side of the squares of [`Float::transpose`].
pub const SQUARE: usize = 4;

/// A floating-point type that kernels compute in.
pub trait Float:
    sealed::Sealed
    + Copy
    + Send
    + Sync
    + Default
    + Debug
    + Display
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Infinity.
    const INFINITY: Self;
    /// The smallest positive normal number.
    const MIN_POSITIVE: Self;
    /// The distance from 1 to the next larger number.
    const EPSILON: Self;
    /// The NumPy name of the type.
    const NAME: &'static str;

    /// Converts from `f64`, rounding to nearest. Exact for `f64`.
    fn from_f64(x: f64) -> Self;
    /// Converts to `f64`, which is exact.
    fn to_f64(self) -> f64;
    /// Converts from `f32`, which is exact.
    fn from_f32(x: f32) -> Self;
    /// Converts to `f32`. Exact for `f32`. An `f64` between two `f32` is rounded to odd (to the one
    /// whose last bit is 1), so that rounding the result again to fewer bits is equivalent to
    /// rounding once.
    fn to_f32(self) -> f32;
    /// Returns the largest absolute value, or NaN if an element is NaN.
    fn largest(x: &[Self]) -> Self;
    /// Transposes a square.
    fn transpose(square: [[Self; SQUARE]; SQUARE]) -> [[Self; SQUARE]; SQUARE];
    /// Returns the correctly rounded square root.
    fn sqrt(self) -> Self;
    /// Returns the absolute value.
    fn abs(self) -> Self;
    /// Returns the number with the sign of `other`.
    fn copysign(self, other: Self) -> Self;
    /// Returns the number if `mask` is -1, and 0 if it is 0.
    fn mask(self, mask: i32) -> Self;
    /// Returns whether the number is neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// Returns whether the number is NaN.
    fn is_nan(self) -> bool;

    /// Returns the larger of two numbers, or NaN if either is NaN. `f64::max` would ignore a NaN.
    #[inline(always)]
    fn max_or_nan(self, other: Self) -> Self {
        // A NaN in `other` fails the first comparison.
        if self > other || self.is_nan() {
            self
        } else {
            other
        }
    }

    /// Limits `self` to `-bound..=bound`. NaN remains NaN.
    #[inline(always)]
    fn clamp_abs(self, bound: Self) -> Self {
        let x = if self > bound { bound } else { self };
        if x < -bound { -bound } else { x }
    }

    /// Returns `self`, or 0 if its absolute value is below `least`; NaN stays NaN. By a product: if an
    /// element of an array is replaced by 0, LLVM stores only the zeros, by masked stores, which
    /// take 20 times as long as others on Zen 3. Every 16th step of AdamW, which flushes, then takes
    /// four times as long as the others (64 Ki elements in cache).
    #[inline(always)]
    fn flush(self, least: Self) -> Self {
        let factor = if self.abs() < least {
            Self::ZERO
        } else {
            Self::ONE
        };
        // The sum makes -0 0.
        self * factor + Self::ZERO
    }

    /// Returns `self * x`, with 0 times infinity defined as 0. NaN remains NaN.
    #[inline(always)]
    fn weigh(self, x: Self) -> Self {
        if (self == Self::ZERO) & (x.abs() == Self::INFINITY) {
            Self::ZERO
        } else {
            self * x
        }
    }

    /// Returns 1 or -1, or `self` if it is 0 or NaN.
    #[inline(always)]
    fn sign(self) -> Self {
        // One selection: a blend takes three instructions on some processors with AVX2.
        if self.abs() > Self::ZERO {
            Self::ONE.copysign(self)
        } else {
            self
        }
    }
}

/// Rounds to odd, and to infinity above the range of `f32`.
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let back = f64::from(nearest);
    let bits = nearest.to_bits();
    let towards_zero = if back.abs() > x.abs() { bits - 1 } else { bits };
    let exact = (back == x) | !nearest.is_finite();
    f32::from_bits(if exact { bits } else { towards_zero | 1 })
}

#[inline(always)]
fn transpose<T: Float>(square: [[T; SQUARE]; SQUARE]) -> [[T; SQUARE]; SQUARE] {
    let mut transposed = [[T::ZERO; SQUARE]; SQUARE];
    for i in 0..SQUARE {
        for j in 0..SQUARE {
            transposed[j][i] = square[i][j];
        }
    }
    transposed
}

macro_rules! float {
    ($t:ident, $bits:ident, $name:literal, $to_f32:expr, $transpose:expr) => {
        impl Float for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $t::INFINITY;
            const MIN_POSITIVE: Self = $t::MIN_POSITIVE;
            const EPSILON: Self = $t::EPSILON;
            const NAME: &'static str = $name;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                x.into()
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                $to_f32(self)
            }
            #[inline(always)]
            fn largest(x: &[Self]) -> Self {
                // As integers, the bits of infinity are above those of all numbers, and the bits of
                // NaN above those of infinity. A maximum of integers vectorizes.
                let mut top = 0;
                for i in 0..x.len() {
                    let bits = x[i].abs().to_bits();
                    top = if bits > top { bits } else { top };
                }
                $t::from_bits(top)
            }
            #[inline(always)]
            fn transpose(square: [[Self; SQUARE]; SQUARE]) -> [[Self; SQUARE]; SQUARE] {
                $transpose(square)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
            #[inline(always)]
            fn copysign(self, other: Self) -> Self {
                $t::copysign(self, other)
            }
            #[inline(always)]
            fn mask(self, mask: i32) -> Self {
                // The sign bit extends.
                $t::from_bits(self.to_bits() & mask as $bits)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
        }
    };
}

float!(f32, u32, "float32", f32::from, isa::transpose);
float!(f64, u64, "float64", to_odd, transpose);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_transposed() {
        fn check<T: Float>() {
            let element = |i: usize, j: usize| T::from_f64((10 * i + j) as f64);
            let square = std::array::from_fn(|i| std::array::from_fn(|j| element(i, j)));
            let expected: [[T; SQUARE]; SQUARE] =
                std::array::from_fn(|i| std::array::from_fn(|j| element(j, i)));
            assert_eq!(T::transpose(square), expected);
        }
        check::<f32>();
        check::<f64>();
    }
}
