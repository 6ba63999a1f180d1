//! Negative log-likelihood of a normal distribution with mean `x` and variance `v`:
//! `(ln(v) + (x - y)^2 / v) / 2`, where `v` is at least `eps`, plus optionally `ln(2 pi) / 2`.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::hyper::{Kind, Range as NumberRange, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::checks::{changed, exactly};
use crate::loss::driver::buffers::{Buffers, Input, piece};
use crate::loss::driver::rowwise;
use crate::loss::signature::{Role, Signature};
use crate::numeric::float::Float;
use crate::numeric::math::Math;
use crate::reduce;

hyper! {
    /// The negative log-likelihood of `y`, with gradients by the mean and by the variance.
    #[derive(Copy)]
    pub struct Gaussian {
        /// Whether the constant is added.
        full: bool, Kind::Flag;
        /// The smallest variance; smaller ones are replaced by it.
        eps: f64, Kind::Number(NumberRange::Positive);
    }
}

impl Loss for Gaussian {
    const SIGNATURE: Signature = Signature {
        arrays: &[
            ("input", Role::Input),
            ("target", Role::ElementTarget),
            ("var", Role::RepeatedInput),
        ],
        ..Signature::ELEMENTWISE
    };

    const CHECKED: &'static [&'static str] = &["var"];

    fn check_elements<T: Math>(&self, _name: &str, elements: &[T], first: usize) -> Result<()> {
        check(elements, first)
    }

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let target = call.numbers()?;
        let [mean, variance]: [Input<'_, T>; 2] = exactly(call.inputs)?;
        check(variance.elements(), 0)?;
        let (len, mut reduction) = (target.len(), call.reduction);
        let [count, scale] = reduction.scales(len as f64, call.loss_scale);
        // SAFETY: each task of `rowwise` has its own elements, so that no two tasks touch the same
        // one.
        let (mean, variance) = unsafe {
            (
                Buffers::new(mean, len, &mut reduction, len)?,
                Buffers::further(variance, len)?,
            )
        };
        let elements = Elements {
            loss: *self,
            mean,
            variance,
            target,
            scale,
        };
        Ok(rowwise::sum(elements, len, 1) / count)
    }
}

/// `ln(2 pi) / 2`
const CONSTANT: f64 = 0.918_938_533_204_672_8;

/// 32 `f64` lanes fill four AVX-512 or eight AVX2 registers.
const LANES: usize = 32;

/// The elements of a call. To the driver an element is a row of one class.
#[derive(Clone, Copy)]
struct Elements<'a, T> {
    loss: Gaussian,
    mean: Buffers<'a, T>,
    variance: Buffers<'a, T>,
    target: &'a [T],
    scale: f64,
}

impl<T: Math> Elements<'_, T> {
    /// The values of `n` elements; 0 for the other lanes.
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
            // As in PyTorch, the gradients ignore that a variance was raised to eps.
            let v = v[i].max_or_nan(eps);
            let slope = d / v;
            // In f64, where the square of a float32 does not overflow.
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

impl<T: Math> rowwise::RowKernel for Elements<'_, T> {
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

/// Counts the numbers below 0. NaN is not counted, and gives a loss of NaN.
#[derive(Clone, Copy)]
struct Negative<'a, T>(&'a [T]);

impl<T: Float> rowwise::RowKernel for Negative<'_, T> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut count = 0;
        for &v in &self.0[rows] {
            count += u32::from(v < T::ZERO);
        }
        f64::from(count)
    }
}

/// Checks that no variance is negative, of those that `before` others come before.
///
/// # Errors
/// Names the first variance below 0.
fn check<T: Float>(variance: &[T], before: usize) -> Result<()> {
    if rowwise::sum(Negative(variance), variance.len(), 1) == 0.0 {
        return Ok(());
    }
    let mut found = variance.iter().enumerate().filter(|&(_, &v)| v < T::ZERO);
    let (first, v) = found.next().ok_or_else(|| changed("var"))?;
    Err(Error::Value(format!(
        "var must be >= 0, but its element {} is {v}",
        before + first
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Reduction, Target};

    fn call<'a>(inputs: Vec<Input<'a, f64>>, target: &'a [f64]) -> Call<'a, f64> {
        Call::new(inputs, Some(Target::Numbers(target)), Reduction::Sum)
    }

    #[test]
    fn by_hand() {
        let (x, v, y) = ([3.0], [4.0], [1.0]);
        let (mut by_x, mut by_v) = ([0.0], [0.0]);
        let loss = Gaussian {
            full: true,
            eps: 1e-6,
        };
        let inputs = vec![
            Input::Gradient(&x, &mut by_x),
            Input::Gradient(&v, &mut by_v),
        ];
        let value = loss.evaluate(call(inputs, &y));
        let expected = 0.5 * (4.0_f64.ln() + 1.0) + 0.5 * std::f64::consts::TAU.ln();
        assert!((value.expect("good arguments") - expected).abs() < 1e-15);
        assert_eq!((by_x, by_v), ([0.5], [0.0]));
    }

    #[test]
    fn a_negative_variance_is_named() {
        let v = [1.0, 0.0, -2.0];
        let inputs = vec![Input::Value(&[0.0; 3]), Input::Value(&v)];
        let loss = Gaussian {
            full: false,
            eps: 1e-6,
        };
        let result = loss.evaluate(call(inputs, &[0.0; 3]));
        assert!(
            matches!(result, Err(Error::Value(message)) if message.contains("element 2 is -2"))
        );
    }
}
