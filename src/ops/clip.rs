//! Gradient norms and clipping.

use crate::exec::isa::{self, Kernel};
use crate::exec::pool::{self, CHUNK};
use crate::numeric::float::Float;
use crate::numeric::scale::ScaleFactor;
use crate::reduce::{self, Absolute, Largest, Powers, Squares};

/// One array, of either type.
#[derive(Clone, Copy, Debug)]
pub enum Array<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

/// One array to be changed in place, of either type.
#[derive(Debug)]
pub enum ArrayMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Double precision.
    F64(&'a mut [f64]),
}

/// Measures every array, in the order given.
pub(crate) fn measure_all<M: reduce::Measure>(arrays: &[Array<'_>], measure: M) -> Vec<f64> {
    let (mut single, mut double) = (Vec::new(), Vec::new());
    for array in arrays {
        match array {
            Array::F32(x) => single.push(*x),
            Array::F64(x) => double.push(*x),
        }
    }
    let mut single = reduce::measure(&single, measure).into_iter();
    let mut double = reduce::measure(&double, measure).into_iter();
    let next = |array: &Array<'_>| match array {
        Array::F32(_) => single.next(),
        Array::F64(_) => double.next(),
    };
    arrays
        .iter()
        .map(next)
        .map(|x| x.expect("one per array"))
        .collect()
}

/// The norm of all arrays taken as one vector, `norm_type` > 0 or infinite.
///
/// Finite elements have a finite norm unless it is beyond `f64` itself. The arrays combine in
/// order, each from blocks of its own, so views of one buffer and separate arrays give the same
/// bits.
pub fn total_norm(arrays: &[Array<'_>], norm_type: f64) -> f64 {
    let sum = |terms: Vec<f64>| terms.iter().sum::<f64>();
    if norm_type == 2.0 {
        scaled_root(
            arrays.iter().all(|array| matches!(array, Array::F32(_))),
            |scale| sum(measure_all(arrays, Squares { scale })),
            || largest(arrays),
        )
    } else if norm_type == 1.0 {
        sum(measure_all(arrays, Absolute))
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
        unit * sum(measure_all(arrays, powers)).powf(1.0 / norm_type)
    }
}

/// The root of a sum of squares, where `squares` takes the sum with every number multiplied by its
/// argument first, and no number is larger than `largest`. `single` says that all of them are `f32`.
pub(crate) fn scaled_root(
    single: bool,
    squares: impl Fn(f64) -> f64,
    largest: impl FnOnce() -> f64,
) -> f64 {
    let sum = squares(1.0);
    // Squares of `f32` neither overflow nor underflow; nor did those whose sum is between these
    // bounds lose anything.
    if single || sum.is_nan() || (1e-250..1e300).contains(&sum) {
        return sum.sqrt();
    }
    let largest = largest();
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    // A power of two that brings the largest number near 1 changes no bit of the others.
    let exponent = ((largest.to_bits() >> 52) as i32 - 1023).clamp(-1022, 1022);
    let scale = f64::from_bits(((1023 - exponent) as u64) << 52);
    squares(scale).sqrt() / scale
}

fn largest(arrays: &[Array<'_>]) -> f64 {
    measure_all(arrays, Largest)
        .into_iter()
        .fold(0.0, f64::max_or_nan)
}

/// What gradients of norm `norm` are multiplied by to have `max_norm` at most: PyTorch's
/// `max_norm / (norm + 1e-6)`, at most 1. A norm that is not finite clips nothing.
pub fn coefficient(norm: f64, max_norm: f64) -> ScaleFactor {
    let norm = norm + 1e-6;
    if norm.is_finite() && max_norm < norm {
        ScaleFactor::quotient(max_norm, norm)
    } else {
        ScaleFactor::ONE
    }
}

struct Scale<'a, T> {
    x: &'a mut [T],
    factors: [T; 2],
}

impl<T: Float> Kernel for Scale<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x = *x * self.factors[0] * self.factors[1];
        }
    }
}

struct Clamp<'a, T> {
    x: &'a mut [T],
    bound: T,
}

impl<T: Float> Kernel for Clamp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x = x.clamp_abs(self.bound);
        }
    }
}

/// Multiplies every array by `factor`; writes nothing when it is 1.
pub fn scale(arrays: &mut [ArrayMut<'_>], factor: ScaleFactor) {
    if factor == ScaleFactor::ONE {
        return;
    }
    let tier = isa::current();
    for_each_chunk(arrays, &|piece| match piece {
        ArrayMut::F32(x) => tier.run(Scale {
            x,
            factors: factor.parts(),
        }),
        ArrayMut::F64(x) => tier.run(Scale {
            x,
            factors: factor.parts(),
        }),
    });
}

/// Limits every element to `-bound..=bound`; NaN stays NaN.
pub fn clamp(arrays: &mut [ArrayMut<'_>], bound: f64) {
    let tier = isa::current();
    for_each_chunk(arrays, &|piece| match piece {
        ArrayMut::F32(x) => tier.run(Clamp {
            x,
            bound: bound as f32,
        }),
        ArrayMut::F64(x) => tier.run(Clamp { x, bound }),
    });
}

fn for_each_chunk(arrays: &mut [ArrayMut<'_>], f: &(impl Fn(ArrayMut<'_>) + Sync)) {
    let mut pieces = Vec::new();
    let mut elements = 0;
    for array in arrays {
        match array {
            ArrayMut::F32(x) => {
                elements += x.len();
                pieces.extend(x.chunks_mut(CHUNK).map(ArrayMut::F32));
            }
            ArrayMut::F64(x) => {
                elements += x.len();
                pieces.extend(x.chunks_mut(CHUNK).map(ArrayMut::F64));
            }
        }
    }
    pool::run_each(pieces, elements / 4, f);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_gradients_have_a_correct_norm() {
        let norm = |x: &[f32]| total_norm(&[Array::F32(x)], 2.0);
        assert!((norm(&[3e38, 3e38]) / (f64::from(3e38_f32) * 2_f64.sqrt()) - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[1e-30]), f64::from(1e-30_f32));
        let norm = |x: &[f64]| total_norm(&[Array::F64(x)], 2.0);
        assert!((norm(&[3e300, 4e300]) / 5e300 - 1.0).abs() < 1e-15);
        assert!((norm(&[3e-300, 4e-300]) / 5e-300 - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[1.0, f64::INFINITY]), f64::INFINITY);
        assert!(norm(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn other_norms() {
        let x = [3.0, -4.0];
        assert_eq!(total_norm(&[Array::F64(&x)], 1.0), 7.0);
        assert_eq!(total_norm(&[Array::F64(&x)], f64::INFINITY), 4.0);
        assert!((total_norm(&[Array::F64(&x)], 3.0) - 91_f64.cbrt()).abs() < 1e-14);
    }

    #[test]
    fn a_norm_whose_squares_lose_digits_is_scaled() {
        // Squares near 1e-320 are multiples of 5e-324.
        let x = [3e-160, 4e-160];
        let norm = total_norm(&[Array::F64(&x)], 2.0);
        assert!((norm / 5e-160 - 1.0).abs() < 1e-15, "{norm}");
        for exponent in (-170..-140).chain(140..170) {
            let x = 1.3 * 10_f64.powi(exponent);
            let norm = total_norm(&[Array::F64(&[x; 1000])], 2.0);
            assert!((norm / (x * 1000_f64.sqrt()) - 1.0).abs() < 1e-15, "{x}");
        }
    }

    #[test]
    fn any_norm_of_what_is_not_finite_says_so() {
        for norm_type in [0.5, 1.0, 2.0, 3.0, f64::INFINITY] {
            let norm = |x: [f64; 2]| total_norm(&[Array::F64(&x)], norm_type);
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
    fn a_tiny_coefficient_keeps_its_digits() {
        let mut x = [1e38_f32; 4];
        scale(&mut [ArrayMut::F32(&mut x)], coefficient(2e38, 1e-6));
        assert!((x[0] / 0.5e-6 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn clamping_keeps_nan() {
        let mut x = [5.0, -5.0, 0.5, f64::NAN];
        clamp(&mut [ArrayMut::F64(&mut x)], 1.0);
        assert_eq!(x[..3], [1.0, -1.0, 0.5]);
        assert!(x[3].is_nan());
    }
}
