//! AdEMAMix (Pagliardini, Ablin and Grangier, 2024).

use super::moments::{EXP_AVG_SQ, Moments, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// m = b1 m + (1 - b1) g,  n = b3(t) n + (1 - b3(t)) g,  v = b2 v + (1 - b2) g^2
    /// p = (1 - lr wd) p - lr (m / (1 - b1^t) + alpha(t) n) / (sqrt(v / (1 - b2^t)) + eps)
    /// alpha(t) = alpha min(t / t_alpha, 1)
    /// b3(t) = min(exp(ln b1 ln b3 / ((1 - t / t_beta3) ln b3 + t / t_beta3 ln b1)), b3)
    /// ```
    pub struct AdEMAMix {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1, b2 and b3.
        betas: [f64; 3], Kind::Numbers(&[Range::Decay, Range::Decay, Range::Decay]);
        /// Weight of the slow average.
        alpha: f64, NON_NEGATIVE;
        /// Number of steps over which alpha increases from 0, or `None` for a constant alpha.
        t_alpha: Option<f64>, Kind::Optional(Range::NonNegative);
        /// Number of steps over which b3 increases from b1, or `None` for a constant b3.
        t_beta3: Option<f64>, Kind::Optional(Range::NonNegative);
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Decoupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
    }
}

impl AdEMAMix {
    fn alpha_at(&self, t: f64) -> f64 {
        match self.t_alpha {
            Some(end) if t < end => self.alpha * t / end,
            _ => self.alpha,
        }
    }

    fn b3_at(&self, t: f64) -> f64 {
        let [b1, _, b3] = self.betas;
        match self.t_beta3 {
            // The half-life grows linearly. A decay rate of 0 has no half-life.
            Some(end) if t < end && b1 > 0.0 && b3 > 0.0 => {
                let (x, start, stop) = (t / end, b1.ln(), b3.ln());
                (start * stop / ((1.0 - x) * stop + x * start))
                    .exp()
                    .min(b3)
            }
            _ => b3,
        }
    }
}

const EXP_AVG_FAST: StateSpec = StateSpec::first_moment("exp_avg_fast");
const EXP_AVG_SLOW: StateSpec = StateSpec::first_moment("exp_avg_slow");

impl Optimizer for AdEMAMix {
    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let [b1, b2, _] = self.betas;
        visitor.elementwise(|context| {
            let t = context.step as f64;
            let b3 = self.b3_at(t);
            Step {
                moments: Moments::new([b1, b2]),
                b3: T::from_f64(b3),
                b3c: T::from_f64(1.0 - b3),
                of_m: T::from_f64(self.lr / correction(b1, context.step)),
                of_n: T::from_f64(self.lr * self.alpha_at(t)),
                root: T::from_f64(1.0 / correction(b2, context.step).sqrt()),
                eps: T::from_f64(self.eps),
                keep: T::from_f64(1.0 - self.lr * self.weight_decay),
            }
        })
    }
}

/// `b3c` is 1 - b3(t); `of_m` and `of_n` include the learning rate; `root` is
/// 1 / sqrt(1 - b2^t).
#[derive(Clone, Copy)]
struct Step<T> {
    moments: Moments<T>,
    b3: T,
    b3c: T,
    of_m: T,
    of_n: T,
    root: T,
    eps: T,
    keep: T,
}

impl<T: Float> Rule<T, 3> for Step<T> {
    const STATE: [StateSpec; 3] = [EXP_AVG_FAST, EXP_AVG_SLOW, EXP_AVG_SQ];

    #[inline(always)]
    fn update(&self, p: T, g: T, [m, n, v]: [T; 3]) -> (T, [T; 3]) {
        let [m, v] = self.moments.advance(g, [m, v]);
        let n = self.b3 * n + self.b3c * g;
        let u = (self.of_m * m + self.of_n * n) / (v.sqrt() * self.root + self.eps);
        (p * self.keep - u, [m, n, v])
    }
}
