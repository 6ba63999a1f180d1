//! RAdam (Liu et al., 2020).

use super::moments::{EXP_AVG, EXP_AVG_SQ, Moments, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, Kind, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// rho = 2 / (1 - b2) - 1,  rho_t = rho - 2 t b2^t / (1 - b2^t)
    /// p -= lr / (1 - b1^t) m * r_t sqrt(1 - b2^t) / (sqrt(v) + eps)     if rho_t > 5
    /// p -= lr / (1 - b1^t) m                                            otherwise
    /// r_t = sqrt((rho_t - 4) (rho_t - 2) rho / ((rho - 4) (rho - 2) rho_t))
    /// ```
    /// with Adam's m and v.
    pub struct RAdam {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Whether weight decay is decoupled: applied to the parameter instead of the gradient.
        decoupled_weight_decay: bool, Kind::Flag;
    }
}

impl RAdam {
    /// Returns `r_t sqrt(1 - b2^t)`, or `None` while rho_t is at most 5.
    fn rectification(&self, t: u64) -> Option<f64> {
        let b2 = self.betas[1];
        let correction = correction(b2, t);
        let rho = 2.0 / (1.0 - b2) - 1.0;
        let rho_t = rho - 2.0 * t as f64 * (1.0 - correction) / correction;
        let r = (rho_t - 4.0) * (rho_t - 2.0) * rho / ((rho - 4.0) * (rho - 2.0) * rho_t);
        (rho_t > 5.0).then(|| (r * correction).sqrt())
    }
}

impl Optimizer for RAdam {
    fn coupled_decay(&self) -> f64 {
        if self.decoupled_weight_decay {
            0.0
        } else {
            self.weight_decay
        }
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.elementwise(|context| {
            let lr = self.lr / correction(self.betas[0], context.step);
            let rectification = self.rectification(context.step);
            let decay = self.weight_decay - self.coupled_decay();
            Step {
                moments: Moments::new(self.betas),
                lr: T::from_f64(lr * rectification.unwrap_or(1.0)),
                rectified: rectification.is_some(),
                eps: T::from_f64(self.eps),
                keep: T::from_f64(1.0 - self.lr * decay),
            }
        })
    }
}

/// `lr` includes the bias correction of m and the rectification.
#[derive(Clone, Copy)]
struct Step<T> {
    moments: Moments<T>,
    lr: T,
    rectified: bool,
    eps: T,
    keep: T,
}

impl<T: Float> Rule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [EXP_AVG, EXP_AVG_SQ];

    #[inline(always)]
    fn update(&self, p: T, g: T, state: [T; 2]) -> (T, [T; 2]) {
        let [m, v] = self.moments.advance(g, state);
        let u = self.lr * m;
        // The condition is the same for all elements, so the compiler moves it out of the loop.
        let u = if self.rectified {
            u / (v.sqrt() + self.eps)
        } else {
            u
        };
        (p * self.keep - u, [m, v])
    }
}
