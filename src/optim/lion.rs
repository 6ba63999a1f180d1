//! Lion (Chen et al., 2023).

use super::cautious::{Cautious, Directed};
use super::moments::EXP_AVG;
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, Kind, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// p = (1 - lr wd) p - lr sign(b1 m + (1 - b1) g)
    /// m = b2 m + (1 - b2) g
    /// ```
    pub struct Lion {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Decoupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Whether elements of the step whose sign differs from the gradient are masked.
        cautious: bool, Kind::Flag;
    }
}

impl Optimizer for Lion {
    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let [b1, b2] = self.betas;
        let step = Step {
            b1: T::from_f64(b1),
            b1c: T::from_f64(1.0 - b1),
            b2: T::from_f64(b2),
            b2c: T::from_f64(1.0 - b2),
            lr: T::from_f64(self.lr),
            keep: T::from_f64(1.0 - self.lr * self.weight_decay),
        };
        if self.cautious {
            visitor.two_pass(|_| Cautious(step))
        } else {
            visitor.elementwise(|_| step)
        }
    }
}

#[derive(Clone, Copy)]
struct Step<T> {
    b1: T,
    b1c: T,
    b2: T,
    b2c: T,
    lr: T,
    keep: T,
}

impl<T: Float> Rule<T, 1> for Step<T> {
    const STATE: [StateSpec; 1] = [EXP_AVG];
    const EPILOGUES: bool = true;

    #[inline(always)]
    fn update(&self, p: T, g: T, state: [T; 1]) -> (T, [T; 1]) {
        let (u, state) = self.direction(g, state);
        (p * self.keep - u, state)
    }
}

impl<T: Float> Directed<T, 1> for Step<T> {
    fn keep(&self) -> T {
        self.keep
    }

    #[inline(always)]
    fn direction(&self, g: T, [m]: [T; 1]) -> (T, [T; 1]) {
        let u = self.lr * (self.b1 * m + self.b1c * g).sign();
        (u, [self.b2 * m + self.b2c * g])
    }
}
