//! Weights of the elements of an elementwise loss.

use super::call::Call;
use super::checks::require_len;
use super::driver::buffers::piece;
use super::driver::pointwise::Piecewise;
use crate::error::Result;
use crate::numeric::float::Float;

/// A loss with a factor per element.
#[derive(Clone, Copy)]
struct Weighted<'a, T, L> {
    loss: L,
    weight: &'a [T],
}

impl<T: Float, L: Piecewise<T>> Piecewise<T> for Weighted<'_, T, L> {
    type Value = L::Value;

    const WORK: usize = L::WORK;

    const IN_STAGES: bool = L::IN_STAGES;

    #[inline(always)]
    fn piece<const N: usize>(
        self,
        start: usize,
        n: usize,
        x: &[T; N],
        y: &[T; N],
    ) -> ([L::Value; N], [T; N]) {
        let weight: [T; N] = piece(self.weight, start, n);
        let (mut values, mut derivatives) = self.loss.piece(start, n, x, y);
        for i in 0..N {
            values[i] = L::Value::from_f64(weight[i].to_f64()).weigh(values[i]);
            derivatives[i] = derivatives[i] * weight[i];
        }
        (values, derivatives)
    }
}

/// Evaluates a loss with the weight per element of the call, which is its first weight, if given.
///
/// # Errors
/// A length is wrong.
pub(super) fn compute<T: Float, L: Piecewise<T>>(loss: L, call: Call<'_, T>) -> Result<f64> {
    match call.weights[0] {
        None => call.piecewise(loss),
        Some(weight) => {
            require_len("weight", weight.len(), call.numbers()?.len())?;
            call.piecewise(Weighted { loss, weight })
        }
    }
}
