//! Weights of the elements and of the positives.

use super::binary::{Bce, BceWithLogits, WithPositives};
use super::{Input, Reduction, piece, require_len};
use crate::error::{Error, Result};
use crate::loss::driver::pointwise::{Each, LANES, Piecewise, compute_pieces};
use crate::numeric::float::Float;
use crate::numeric::math::Math;

/// The weights that a caller may give to a binary cross-entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights<'a, T> {
    /// A factor of value and gradient per element.
    pub weight: Option<&'a [T]>,
    /// A factor of the positives' part: per class, which is the last axis, or per element.
    pub pos_weight: Option<&'a [T]>,
}

/// A loss with a factor per element.
#[derive(Clone, Copy)]
struct Weighted<'a, T, L> {
    loss: L,
    weight: &'a [T],
}

impl<T: Float, L: Piecewise<T>> Piecewise<T> for Weighted<'_, T, L> {
    type Value = L::Value;

    #[inline(always)]
    fn piece(
        self,
        start: usize,
        n: usize,
        x: &[T; LANES],
        y: &[T; LANES],
    ) -> ([L::Value; LANES], [T; LANES]) {
        let weight: [T; LANES] = piece(self.weight, start, n);
        let (mut values, mut derivatives) = self.loss.piece(start, n, x, y);
        for i in 0..LANES {
            values[i] = L::Value::from_f64(weight[i].to_f64()).weigh(values[i]);
            derivatives[i] = derivatives[i] * weight[i];
        }
        (values, derivatives)
    }
}

impl<T: Math> Weights<'_, T> {
    pub(super) fn is_empty(&self) -> bool {
        self.weight.is_none() && self.pos_weight.is_none()
    }

    /// The losses that take weights, by name.
    pub(super) fn compute(
        self,
        name: &str,
        input: Input<'_, T>,
        target: &[T],
        reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        if let Some(weight) = self.weight {
            require_len("weight", weight.len(), target.len())?;
        }
        if self.pos_weight.is_some_and(<[T]>::is_empty) && !target.is_empty() {
            return Err(Error::Value("pos_weight must have an element".into()));
        }
        match (name, self.weight, self.pos_weight) {
            ("bce", Some(weight), None) => {
                let loss = Weighted {
                    loss: Each(Bce),
                    weight,
                };
                compute_pieces(loss, input, target, reduction, loss_scale)
            }
            ("bce_with_logits", Some(weight), None) => {
                let loss = Weighted {
                    loss: Each(BceWithLogits),
                    weight,
                };
                compute_pieces(loss, input, target, reduction, loss_scale)
            }
            ("bce_with_logits", weight, Some(pos_weight)) => {
                let mut memory = Vec::new();
                let loss = WithPositives::new(pos_weight, target.len(), &mut memory);
                match weight {
                    None => compute_pieces(loss, input, target, reduction, loss_scale),
                    Some(weight) => {
                        let loss = Weighted { loss, weight };
                        compute_pieces(loss, input, target, reduction, loss_scale)
                    }
                }
            }
            _ => Err(Error::Value(format!(
                "{name:?} does not take these weights"
            ))),
        }
    }
}
