//! Adadelta (Zeiler, 2012).

use super::moments::SQUARE_AVG;
use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// v = rho v + (1 - rho) g^2
    /// u = sqrt(d + eps) / sqrt(v + eps) * g
    /// d = rho d + (1 - rho) u^2
    /// p -= lr u
    /// ```
    pub struct Adadelta {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// Decay rate of both averages.
        rho: f64, Kind::Number(Range::Decay);
        /// Added under both square roots for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Coupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
    }
}

const ACC_DELTA: StateSpec = StateSpec::second_moment("acc_delta");

impl Optimizer for Adadelta {
    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.elementwise(|_| Step {
            rho: T::from_f64(self.rho),
            rhoc: T::from_f64(1.0 - self.rho),
            eps: T::from_f64(self.eps),
            lr: T::from_f64(self.lr),
        })
    }
}

/// `rhoc` is 1 - rho.
#[derive(Clone, Copy)]
struct Step<T> {
    rho: T,
    rhoc: T,
    eps: T,
    lr: T,
}

impl<T: Float> Rule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [SQUARE_AVG, ACC_DELTA];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v, d]: [T; 2]) -> (T, [T; 2]) {
        let v = self.rho * v + self.rhoc * g * g;
        let u = (d + self.eps).sqrt() / (v + self.eps).sqrt() * g;
        let d = self.rho * d + self.rhoc * (u * u);
        (p - self.lr * u, [v, d])
    }
}
