//! Focal loss of softmax: `alpha w_t (1 - p_t)^gamma (-ln(p_t))` per row, for its target class `t`.
//!
//! With `o = 1 - p_t` its gradient is that of cross-entropy times
//! `alpha o^gamma (1 + gamma p_t (-ln(p_t)) / o)`, and the last ratio tends to 1 as `o` goes to 0:
//! nothing cancels and nothing is divided by 0.

use super::cross_entropy::{self, Focus};
use super::{Input, Labels, Reduction, weigh};
use crate::error::Result;
use crate::numeric::math::Math;

/// Cross-entropy that counts an easy row less, by the power `gamma` of its error.
#[derive(Clone, Copy, Debug)]
pub struct Focal {
    /// The power, finite and >= 0.
    pub gamma: f64,
    /// A factor of all classes; the weights of the labels are those of each.
    pub alpha: f64,
}

impl Focus for Focal {
    const PLAIN: bool = false;

    #[inline(always)]
    fn factors(self, [p, others]: [f64; 2], minus_ln_p: f64) -> [f64; 2] {
        let power = Math::exp_nonpositive(self.gamma * Math::ln(others));
        let power = if self.gamma == 0.0 { 1.0 } else { power };
        let ratio = weigh(p, minus_ln_p) / others;
        let ratio = if others == 0.0 { 1.0 } else { ratio };
        let value = self.alpha * power;
        [value, value * (1.0 + self.gamma * ratio)]
    }
}

impl Focal {
    /// The value under `reduction`, and the gradient times `loss_scale`.
    ///
    /// # Errors
    /// A wrong length, or a target that is no class.
    pub fn compute<T: Math>(
        self,
        labels: Labels<'_, T>,
        input: Input<'_, T>,
        reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        cross_entropy::focused(self, labels, input, reduction, loss_scale)
    }
}
