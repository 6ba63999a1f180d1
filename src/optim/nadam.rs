//! NAdam (Dozat, 2016).

use super::moments::{EXP_AVG, EXP_AVG_SQ, Moments, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, Kind, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::{MAX_SCALARS, StepContext};
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// mu_t = b1 (1 - 0.96^(t psi) / 2),  M = mu_1 ... mu_t p -= lr ((1 - mu_t) g / (1 - M) +
    /// mu_(t+1) m / (1 - M mu_(t+1))) / (sqrt(v / (1 - b2^t)) + eps)
    /// ```
    /// with Adam's m and v; psi is `momentum_decay`.
    pub struct NAdam {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// psi.
        momentum_decay: f64, NON_NEGATIVE;
        /// Whether weight decay is decoupled: applied to the parameter instead of the gradient.
        decoupled_weight_decay: bool, Kind::Flag;
    }
}

impl NAdam {
    fn mu(&self, t: u64) -> f64 {
        self.betas[0] * (1.0 - 0.5 * 0.96_f64.powf(t as f64 * self.momentum_decay))
    }

    fn product(&self, context: StepContext) -> f64 {
        context.scalars[0] * self.mu(context.step)
    }
}

impl Optimizer for NAdam {
    fn coupled_decay(&self) -> f64 {
        if self.decoupled_weight_decay {
            0.0
        } else {
            self.weight_decay
        }
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        vec![("mu_product", 1.0)]
    }

    fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
        [self.product(*context), 0.0, 0.0]
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.elementwise(|context| {
            let t = context.step;
            let (mu, next, product) = (self.mu(t), self.mu(t + 1), self.product(context));
            let decay = self.weight_decay - self.coupled_decay();
            Step {
                moments: Moments::new(self.betas),
                root: T::from_f64(1.0 / correction(self.betas[1], t).sqrt()),
                eps: T::from_f64(self.eps),
                of_g: T::from_f64(self.lr * (1.0 - mu) / (1.0 - product)),
                of_m: T::from_f64(self.lr * next / (1.0 - product * next)),
                keep: T::from_f64(1.0 - self.lr * decay),
            }
        })
    }
}

/// `root` is 1 / sqrt(1 - b2^t); `of_g` and `of_m` include the learning rate.
#[derive(Clone, Copy)]
struct Step<T> {
    moments: Moments<T>,
    root: T,
    eps: T,
    of_g: T,
    of_m: T,
    keep: T,
}

impl<T: Float> Rule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [EXP_AVG, EXP_AVG_SQ];

    #[inline(always)]
    fn update(&self, p: T, g: T, state: [T; 2]) -> (T, [T; 2]) {
        let [m, v] = self.moments.advance(g, state);
        let u = (self.of_g * g + self.of_m * m) / (v.sqrt() * self.root + self.eps);
        (p * self.keep - u, [m, v])
    }
}
