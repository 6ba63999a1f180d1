//! Gradient norms and clipping.

use std::ops::Range;

use crate::exec::isa::{self, Kernel, Tier};
use crate::exec::pool;
use crate::numeric::float::Float;
use crate::numeric::scale::ScaleFactor;
use crate::reduce::{self, Absolute, Largest, Powers, ScaledSquares, Squares};
use crate::storage::precision::{AnyView, Precision};
use crate::storage::view::StorageView;

/// Returns the norm of all arrays taken as one vector. `norm_type` is > 0 and may be infinite.
///
/// The norm of finite elements is finite unless it exceeds the range of `f64`. Each array is
/// divided into blocks separately, and the arrays are combined in order, so views of one buffer and
/// separate arrays give bitwise identical results.
pub fn total_norm(arrays: &[AnyView<'_>], norm_type: f64) -> f64 {
    let sum = |terms: Vec<f64>| reduce::total(&terms);
    if norm_type == 2.0 {
        scaled_root(
            arrays.iter().all(AnyView::is_single),
            || sum(reduce::measure(arrays, Squares)),
            |scale| sum(reduce::measure(arrays, ScaledSquares { scale })),
            || largest(arrays),
        )
    } else if norm_type == 1.0 {
        sum(reduce::measure(arrays, Absolute))
    } else if norm_type == f64::INFINITY {
        largest(arrays)
    } else {
        let unit = largest(arrays);
        if unit == 0.0 || !unit.is_finite() {
            return unit;
        }
        let powers = Powers {
            power: norm_type,
            unit,
        };
        unit * sum(reduce::measure(arrays, powers)).powf(1.0 / norm_type)
    }
}

/// Returns the root of a sum of squares without overflow or underflow. `squares` computes the sum,
/// `scaled` that with every number multiplied by its argument, `largest` the largest absolute
/// value, and `single` says whether all numbers are `f32`.
pub(crate) fn scaled_root(
    single: bool,
    squares: impl FnOnce() -> f64,
    scaled: impl FnOnce(f64) -> f64,
    largest: impl FnOnce() -> f64,
) -> f64 {
    let sum = squares();
    // Squares of `f32` neither overflow nor underflow in `f64`. If the sum is between these bounds,
    // other squares have not lost accuracy either.
    if single || sum.is_nan() || (1e-250..1e300).contains(&sum) {
        return sum.sqrt();
    }
    let largest = largest();
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    // A power of two that scales the largest number to about 1. Multiplying by it is exact.
    let exponent = ((largest.to_bits() >> 52) as i32 - 1023).clamp(-1022, 1022);
    let scale = f64::from_bits(((1023 - exponent) as u64) << 52);
    scaled(scale).sqrt() / scale
}

fn largest(arrays: &[AnyView<'_>]) -> f64 {
    reduce::measure(arrays, Largest)
        .into_iter()
        .fold(0.0, f64::max_or_nan)
}

/// Returns the factor that reduces gradients of norm `norm` to at most `max_norm`: as in PyTorch,
/// `max_norm / (norm + 1e-6)`, at most 1. It is 1 if the norm is not finite.
pub fn coefficient(norm: f64, max_norm: f64) -> ScaleFactor {
    let norm = norm + 1e-6;
    if norm.is_finite() && max_norm < norm {
        ScaleFactor::quotient(max_norm, norm)
    } else {
        ScaleFactor::ONE
    }
}

/// An operation on every element.
trait Change: Copy + Sync {
    fn apply<T: Float>(self, x: &mut [T], tier: Tier);
}

#[derive(Clone, Copy)]
struct Scale(ScaleFactor);

impl Change for Scale {
    fn apply<T: Float>(self, x: &mut [T], tier: Tier) {
        let factors = self.0.parts();
        tier.run(ScaleKernel { x, factors });
    }
}

struct ScaleKernel<'a, T> {
    x: &'a mut [T],
    factors: [T; 2],
}

impl<T: Float> Kernel for ScaleKernel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x = *x * self.factors[0] * self.factors[1];
        }
    }
}

#[derive(Clone, Copy)]
struct Clamp(f64);

impl Change for Clamp {
    fn apply<T: Float>(self, x: &mut [T], tier: Tier) {
        let bound = T::from_f64(self.0);
        tier.run(ClampKernel { x, bound });
    }
}

struct ClampKernel<'a, T> {
    x: &'a mut [T],
    bound: T,
}

impl<T: Float> Kernel for ClampKernel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x = x.clamp_abs(self.bound);
        }
    }
}

/// Multiplies every array by `factor`. Writes nothing if the factor is 1.
///
/// # Panics
/// An array is read-only.
pub fn scale(arrays: &mut [AnyView<'_>], factor: ScaleFactor) {
    if factor != ScaleFactor::ONE {
        change(arrays, Scale(factor));
    }
}

/// Limits every element to `-bound..=bound`. NaN remains NaN.
///
/// # Panics
/// An array is read-only.
pub fn clamp(arrays: &mut [AnyView<'_>], bound: f64) {
    change(arrays, Clamp(bound));
}

fn change(arrays: &mut [AnyView<'_>], change: impl Change) {
    fn piece<T: Float>(
        array: &StorageView<'_, T>,
        range: Range<usize>,
        change: impl Change,
        tier: Tier,
    ) {
        assert!(array.is_writable(), "arrays must be writable");
        // SAFETY: `for_ranges` gives each range once, inside the array and without overlap. The
        // array is writable and borrowed exclusively by the caller of `change`.
        unsafe { array.update(range, tier, |_, x| change.apply(x, tier)) };
    }
    let tier = isa::current();
    let lengths = arrays.iter().map(reduce::Elements::len);
    pool::for_ranges(lengths, 0.25, |owner, range| match &arrays[owner] {
        Precision::Single(x) => piece(x, range, change, tier),
        Precision::Double(x) => piece(x, range, change, tier),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Half, Rounding};

    fn single(x: &[f32]) -> AnyView<'_> {
        StorageView::read(x).into()
    }

    fn double(x: &[f64]) -> AnyView<'_> {
        StorageView::read(x).into()
    }

    #[test]
    fn extreme_gradients_have_a_correct_norm() {
        let norm = |x: &[f32]| total_norm(&[single(x)], 2.0);
        assert!((norm(&[3e38, 3e38]) / (f64::from(3e38_f32) * 2_f64.sqrt()) - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[1e-30]), f64::from(1e-30_f32));
        let norm = |x: &[f64]| total_norm(&[double(x)], 2.0);
        assert!((norm(&[3e300, 4e300]) / 5e300 - 1.0).abs() < 1e-15);
        assert!((norm(&[3e-300, 4e-300]) / 5e-300 - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[1.0, f64::INFINITY]), f64::INFINITY);
        assert!(norm(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn norms_of_other_types_are_correct() {
        let x = [3.0, -4.0];
        assert_eq!(total_norm(&[double(&x)], 1.0), 7.0);
        assert_eq!(total_norm(&[double(&x)], f64::INFINITY), 4.0);
        assert!((total_norm(&[double(&x)], 3.0) - 91_f64.cbrt()).abs() < 1e-14);
    }

    #[test]
    fn a_norm_whose_squares_lose_digits_is_scaled() {
        // Squares near 1e-320 are subnormal.
        let x = [3e-160, 4e-160];
        let norm = total_norm(&[double(&x)], 2.0);
        assert!((norm / 5e-160 - 1.0).abs() < 1e-15, "{norm}");
        for exponent in (-170..-140).chain(140..170) {
            let x = 1.3 * 10_f64.powi(exponent);
            let norm = total_norm(&[double(&[x; 1000])], 2.0);
            assert!((norm / (x * 1000_f64.sqrt()) - 1.0).abs() < 1e-15, "{x}");
        }
    }

    #[test]
    fn norms_propagate_infinities_and_nan() {
        for norm_type in [0.5, 1.0, 2.0, 3.0, f64::INFINITY] {
            let norm = |x: [f64; 2]| total_norm(&[double(&x)], norm_type);
            assert_eq!(norm([1.0, -f64::INFINITY]), f64::INFINITY, "{norm_type}");
            assert!(norm([1.0, f64::NAN]).is_nan(), "{norm_type}");
            assert!(norm([f64::INFINITY, f64::NAN]).is_nan(), "{norm_type}");
            assert_eq!(norm([0.0, 0.0]), 0.0, "{norm_type}");
        }
    }

    #[test]
    fn a_coefficient_is_that_of_pytorch() {
        for (norm, max_norm) in [(1.0, 1.0), (1.0, 1.0 + 5e-7), (2.0, 1.0), (1e-7, 1e-7)] {
            let expected = ScaleFactor::quotient(max_norm, norm + 1e-6);
            assert_eq!(coefficient(norm, max_norm), expected);
            assert!(expected.to_f64() < 1.0);
        }
        let sufficient = [
            (0.5, 1.0),
            (1.0, 1.0 + 1e-6),
            (0.0, 1.0),
            (1.0, f64::INFINITY),
        ];
        let not_finite = [f64::INFINITY, f64::NAN].map(|norm| (norm, 1.0));
        for (norm, max_norm) in sufficient.into_iter().chain(not_finite) {
            assert_eq!(coefficient(norm, max_norm), ScaleFactor::ONE, "{norm}");
        }
    }

    #[test]
    fn a_tiny_coefficient_is_accurate() {
        let mut x = [1e38_f32; 4];
        scale(
            &mut [StorageView::native(&mut x).into()],
            coefficient(2e38, 1e-6),
        );
        assert!((x[0] / 0.5e-6 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn clamping_preserves_nan() {
        let mut x = [5.0, -5.0, 0.5, f64::NAN];
        clamp(&mut [StorageView::native(&mut x).into()], 1.0);
        assert_eq!(x[..3], [1.0, -1.0, 0.5]);
        assert!(x[3].is_nan());
    }

    fn bfloat16(x: &mut [u16]) -> AnyView<'_> {
        StorageView::<f32>::half(Half::Bf16, x, Rounding::Nearest).into()
    }

    #[test]
    fn numbers_in_16_bits_are_changed_in_place_and_rounded_to_nearest() {
        // 1.0, -3.0 and 1.0078125 (the number after 1) in bfloat16.
        let bits = [0x3F80, 0xC040, 0x3F81];
        let n = 1 + 2 * crate::exec::scratch::TILE;
        let mut x: Vec<u16> = (0..n).map(|i| bits[i % 3]).collect();
        assert_eq!(total_norm(&[bfloat16(&mut x)], f64::INFINITY), 3.0);
        clamp(&mut [bfloat16(&mut x)], 2.0);
        scale(&mut [bfloat16(&mut x)], ScaleFactor::quotient(1.0, 2.0));
        let expected = [0x3F00, 0xBF80, 0x3F01];
        assert!((0..n).all(|i| x[i] == expected[i % 3]));
    }

    #[test]
    #[should_panic(expected = "arrays must be writable")]
    fn scaling_a_read_only_array_is_rejected() {
        scale(&mut [single(&[1.0])], ScaleFactor::quotient(1.0, 2.0));
    }
}
