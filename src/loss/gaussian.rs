//! Negative log-likelihood of a normal distribution with mean `x` and variance `v`:
//! `(ln(v) + (x - y)^2 / v) / 2`, with `v` at least `eps`, plus `ln(2 pi) / 2` if asked.

use std::ops::Range;

use super::{Buffers, Input, Reduction, changed, check_loss_scale, piece};
use crate::error::{Error, Result};
use crate::loss::driver::rowwise;
use crate::numeric::float::Float;
use crate::numeric::math::Math;
use crate::reduce;

/// The likelihood of `y`, with gradients by the mean and by the variance.
#[derive(Clone, Copy, Debug)]
pub struct Gaussian {
    /// Whether the constant is added.
    pub full: bool,
    /// The least variance, > 0.
    pub eps: f64,
}

/// `ln(2 pi) / 2`
const CONSTANT: f64 = 0.918_938_533_204_672_8;

/// 32 `f64` lanes fill four AVX-512 or eight AVX2 registers.
const LANES: usize = 32;

/// To the driver an element is a row of one class.
#[derive(Clone, Copy)]
struct Elements<'a, T> {
    loss: Gaussian,
    mean: Buffers<'a, T>,
    variance: Buffers<'a, T>,
    target: &'a [T],
    scale: f64,
}

impl<T: Math> Elements<'_, T> {
    /// The values of `n` elements; 0 for the lanes beyond.
    #[inline(always)]
    fn step(&self, start: usize, n: usize) -> [f64; LANES] {
        let x: [T; LANES] = self.mean.read(start, n, T::ZERO);
        let v: [T; LANES] = self.variance.read(start, n, T::ONE);
        let y: [T; LANES] = piece(self.target, start, n);
        let constant = if self.loss.full { CONSTANT } else { 0.0 };
        let eps = T::from_f64(self.loss.eps);
        let [scale, half] = [1.0, 0.5].map(|factor| T::from_f64(factor * self.scale));
        let mut values = [0.0; LANES];
        let (mut by_x, mut by_v) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for i in 0..LANES {
            let d = x[i] - y[i];
            // As in PyTorch, gradients do not see that a variance was raised to eps.
            let v = v[i].max_or_nan(eps);
            let slope = d / v;
            // In f64, where no f32 overflows.
            let square = d.to_f64() * slope.to_f64();
            let value = 0.5 * (v.ln().to_f64() + square) + constant;
            values[i] = if (i as u32) < n as u32 { value } else { 0.0 };
            by_x[i] = scale * slope;
            by_v[i] = half * (T::ONE - d * slope) / v;
        }
        self.mean.write(start, n, &by_x);
        self.variance.write(start, n, &by_v);
        self.mean.write_values(start, n, &values);
        values
    }
}

impl<T: Math> rowwise::Rows for Elements<'_, T> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut lanes = [0.0; LANES];
        let mut start = rows.start;
        while start + LANES <= rows.end {
            let values = self.step(start, LANES);
            for i in 0..LANES {
                lanes[i] += values[i];
            }
            start += LANES;
        }
        if start < rows.end {
            let values = self.step(start, rows.end - start);
            for i in 0..LANES {
                lanes[i] += values[i];
            }
        }
        reduce::sum(lanes)
    }
}

/// How many are below 0. A NaN is not, and gives NaN.
#[derive(Clone, Copy)]
struct Negative<'a, T>(&'a [T]);

impl<T: Float> rowwise::Rows for Negative<'_, T> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut count = 0;
        for &v in &self.0[rows] {
            count += u32::from(v < T::ZERO);
        }
        f64::from(count)
    }
}

/// # Errors
/// The first variance below 0.
fn check<T: Float>(variance: &[T]) -> Result<()> {
    if rowwise::sum(Negative(variance), variance.len(), 1) == 0.0 {
        return Ok(());
    }
    let mut found = variance.iter().enumerate().filter(|&(_, &v)| v < T::ZERO);
    let (first, v) = found.next().ok_or_else(|| changed("var"))?;
    Err(Error::Value(format!(
        "var must be >= 0, but its element {first} is {v}"
    )))
}

impl Gaussian {
    /// The value under `reduction`, and the gradients by mean and variance times `loss_scale`.
    ///
    /// # Errors
    /// A negative variance, `loss_scale` out of range, or a wrong length.
    pub fn compute<T: Math>(
        self,
        [mean, variance]: [Input<'_, T>; 2],
        target: &[T],
        mut reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        check_loss_scale(loss_scale)?;
        check(variance.elements())?;
        let len = target.len();
        let [count, scale] = reduction.scales(len as f64, loss_scale);
        // SAFETY: each task of `rowwise` has elements of its own.
        let (mean, variance) = unsafe {
            (
                Buffers::new(mean, len, &mut reduction, len)?,
                Buffers::further(variance, len)?,
            )
        };
        let elements = Elements {
            loss: self,
            mean,
            variance,
            target,
            scale,
        };
        Ok(rowwise::sum(elements, len, 1) / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (x, v, y) = ([3.0], [4.0], [1.0]);
        let (mut by_x, mut by_v) = ([0.0], [0.0]);
        let loss = Gaussian {
            full: true,
            eps: 1e-6,
        };
        let inputs = [
            Input::Gradient(&x, &mut by_x),
            Input::Gradient(&v, &mut by_v),
        ];
        let value = loss.compute(inputs, &y, Reduction::Sum, 1.0);
        let expected = 0.5 * (4.0_f64.ln() + 1.0) + 0.5 * std::f64::consts::TAU.ln();
        assert!((value.expect("good arguments") - expected).abs() < 1e-15);
        assert_eq!((by_x, by_v), ([0.5], [0.0]));
    }

    #[test]
    fn a_negative_variance_is_named() {
        let v = [1.0, 0.0, -2.0];
        let inputs = [Input::Value(&[0.0; 3]), Input::Value(&v)];
        let loss = Gaussian {
            full: false,
            eps: 1e-6,
        };
        let result = loss.compute(inputs, &[0.0; 3], Reduction::Sum, 1.0);
        assert!(
            matches!(result, Err(Error::Value(message)) if message.contains("element 2 is -2"))
        );
    }
}
