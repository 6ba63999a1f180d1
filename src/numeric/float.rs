//! The two arithmetic types, `f32` and `f64`, behind one trait.
//!
//! Only operations that IEEE 754 defines exactly are here, so that a kernel gives the same bits
//! whatever instructions it was compiled to. There is no `mul_add` on purpose: a fused multiply-add
//! rounds once where a multiplication and an addition round twice.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

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
    /// NumPy's name of the type.
    const NAME: &'static str;

    /// Rounds to nearest; exact for `f64`.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Exact.
    fn from_f32(x: f32) -> Self;
    /// Exact for `f32`. A `f64` in between two is rounded to the one that ends in a 1 bit, so that
    /// rounding the result again, to fewer bits, gives what rounding once would have given.
    fn to_f32(self) -> f32;
    /// The largest absolute value, or NaN where there is one.
    fn largest(x: &[Self]) -> Self;
    /// The correctly rounded square root.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// NaN.
    fn is_nan(self) -> bool;

    /// The larger of two, or NaN where either is NaN (Rust's own `max` would drop it).
    #[inline(always)]
    fn max_or_nan(self, other: Self) -> Self {
        // A NaN in `other` fails the first comparison.
        if self > other || self.is_nan() {
            self
        } else {
            other
        }
    }

    /// `self` limited to `-bound..=bound`; NaN stays NaN.
    #[inline(always)]
    fn clamp_abs(self, bound: Self) -> Self {
        let x = if self > bound { bound } else { self };
        if x < -bound { -bound } else { x }
    }

    /// `self`, or 0 where it is subnormal.
    #[inline(always)]
    fn flush(self) -> Self {
        self.flush_where(true)
    }

    /// `self`, or 0 where it is subnormal and `idle` holds.
    #[inline(always)]
    fn flush_where(self, idle: bool) -> Self {
        if idle & (self.abs() < Self::MIN_POSITIVE) {
            Self::ZERO
        } else {
            self
        }
    }

    /// `self * x`, where 0 times infinity is 0; NaN stays NaN.
    #[inline(always)]
    fn weigh(self, x: Self) -> Self {
        if (self == Self::ZERO) & (x.abs() == Self::INFINITY) {
            Self::ZERO
        } else {
            self * x
        }
    }

    /// 1, -1, or what it is where it is 0 or NaN.
    #[inline(always)]
    fn sign(self) -> Self {
        let x = if self > Self::ZERO { Self::ONE } else { self };
        if x < Self::ZERO { -Self::ONE } else { x }
    }
}

/// Rounds to odd; to infinity where `f32` ends.
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let back = f64::from(nearest);
    let bits = nearest.to_bits();
    let towards_zero = if back.abs() > x.abs() { bits - 1 } else { bits };
    let exact = (back == x) | !nearest.is_finite();
    f32::from_bits(if exact { bits } else { towards_zero | 1 })
}

macro_rules! float {
    ($t:ident, $name:literal, $to_f32:expr) => {
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
                // In the order of their bits, infinity and then NaN come after all numbers; and
                // maxima of integers, unlike sums, vectorize as they stand.
                let mut top = 0;
                for i in 0..x.len() {
                    let bits = x[i].abs().to_bits();
                    top = if bits > top { bits } else { top };
                }
                $t::from_bits(top)
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
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
        }
    };
}

float!(f32, "float32", f32::from);
float!(f64, "float64", to_odd);
