//! Adagrad (Duchi, Hazan and Singer, 2011).

use crate::numeric::float::Float;
use crate::optim::hyper::{NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// v += g^2
    /// p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(v) + eps)
    /// ```
    pub struct Adagrad {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// Decay of the learning rate per step.
        lr_decay: f64, NON_NEGATIVE;
        /// Coupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Initial value of v.
        initial_accumulator_value: f64, NON_NEGATIVE;
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
    }
}

const SUM: StateSpec = StateSpec::other("sum").non_negative();

impl Adagrad {
    fn rate_at(&self, context: StepContext) -> f64 {
        let t = context.step as f64;
        self.lr / (1.0 + (t - 1.0) * self.lr_decay)
    }
}

impl Optimizer for Adagrad {
    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn rate(&self, context: StepContext) -> Option<f64> {
        Some(self.rate_at(context))
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.elementwise(|context| {
            let start = if context.fresh {
                self.initial_accumulator_value
            } else {
                0.0
            };
            Step {
                lr: T::from_f64(self.rate_at(context)),
                eps: T::from_f64(self.eps),
                start: T::from_f64(start),
            }
        })
    }
}

/// `start` is added to v: its initial value at the first step, 0 afterwards.
#[derive(Clone, Copy)]
struct Step<T> {
    lr: T,
    eps: T,
    start: T,
}

impl<T: Float> Rule<T, 1> for Step<T> {
    const STATE: [StateSpec; 1] = [SUM];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let v = (v + self.start) + g * g;
        (p - self.lr * g / (v.sqrt() + self.eps), [v])
    }
}
