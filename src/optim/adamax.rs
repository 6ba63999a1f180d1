//! Adamax (Kingma and Ba, 2015).

use super::moments::{EXP_AVG, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// m = b1 m + (1 - b1) g
    /// u = max(b2 u, abs(g) + eps)
    /// p -= lr / (1 - b1^t) * m / u
    /// ```
    pub struct Adamax {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Added to abs(g) so that u is never 0.
        eps: f64, NON_NEGATIVE;
        /// Coupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
    }
}

const EXP_INF: StateSpec = StateSpec::second_moment("exp_inf");

impl Optimizer for Adamax {
    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let [b1, b2] = self.betas;
        visitor.elementwise(|context| Step {
            b1: T::from_f64(b1),
            b1c: T::from_f64(1.0 - b1),
            b2: T::from_f64(b2),
            eps: T::from_f64(self.eps),
            lr: T::from_f64(self.lr / correction(b1, context.step)),
        })
    }
}

/// `b1c` is 1 - b1; `lr` is lr / (1 - b1^t).
#[derive(Clone, Copy)]
struct Step<T> {
    b1: T,
    b1c: T,
    b2: T,
    eps: T,
    lr: T,
}

impl<T: Float> Rule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [EXP_AVG, EXP_INF];

    #[inline(always)]
    fn update(&self, p: T, g: T, [m, u]: [T; 2]) -> (T, [T; 2]) {
        let m = self.b1 * m + self.b1c * g;
        let u = (self.b2 * u).max_or_nan(g.abs() + self.eps);
        (p - self.lr * m / u, [m, u])
    }
}
