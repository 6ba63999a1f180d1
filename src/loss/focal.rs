//! Focal loss of softmax: `alpha w_t (1 - p_t)^gamma (-ln(p_t))` per row, for its target class `t`.
//!
//! With `o = 1 - p_t` its gradient is that of cross-entropy times
//! `alpha o^gamma (1 + gamma p_t (-ln(p_t)) / o)`, and the last ratio tends to 1 as `o` goes to 0:
//! no terms cancel and nothing is divided by 0.

use crate::error::Result;
use crate::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::cross_entropy::{self, Focus};
use crate::loss::labels::weigh;
use crate::loss::signature::{Signature, WeightShape};
use crate::numeric::math::Math;

hyper! {
    /// Cross-entropy times the power `gamma` of the error, so that easy rows count less.
    #[derive(Copy)]
    pub struct Focal {
        /// The exponent.
        gamma: f64, NON_NEGATIVE;
        /// A factor of all classes, 1 if it is not given. The weight of the same name has one factor
        /// per class.
        alpha: Option<f64>, Kind::Optional(Range::NonNegative);
    }
}

impl Loss for Focal {
    const SIGNATURE: Signature = Signature {
        weights: &[("alpha", WeightShape::Classes)],
        weighted_mean: false,
        ..Signature::CLASSES
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let focus = Power {
            gamma: self.gamma,
            alpha: self.alpha.unwrap_or(1.0),
        };
        cross_entropy::focused(focus, call)
    }
}

#[derive(Clone, Copy)]
struct Power {
    gamma: f64,
    alpha: f64,
}

impl Focus for Power {
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
