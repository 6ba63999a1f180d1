//! LAMB (You et al., 2020).

use super::moments::{EXP_AVG, EXP_AVG_SQ, Moments, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, Kind, NON_NEGATIVE, Range, hyper};
use crate::sweep::rule::{Optimizer, Term, TwoPassRule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

hyper! {
    /// ```text
    /// u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + wd p
    /// ratio = min(norm(p) / norm(u), max_trust), over one array; 1 if a norm is 0
    /// p -= lr ratio u
    /// ```
    /// with Adam's m and v.
    pub struct Lamb {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Decoupled weight decay, a term of u.
        weight_decay: f64, NON_NEGATIVE;
        /// Whether the moments are divided by 1 - b^t.
        bias_correction: bool, Kind::Flag;
        /// Upper bound of the ratio, or `None` for no bound.
        max_trust: Option<f64>, Kind::Optional(Range::NonNegative);
        /// Whether the ratio is computed. If not it is 1, as usual for biases and norm layers.
        layer_adaptation: bool, Kind::Flag;
    }
}

impl Optimizer for Lamb {
    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.two_pass(|context| {
            let correct = |b| {
                if self.bias_correction {
                    correction(b, context.step)
                } else {
                    1.0
                }
            };
            let [c1, c2] = self.betas.map(correct);
            Step {
                moments: Moments::new(self.betas),
                scale: T::from_f64(1.0 / c1),
                root: T::from_f64(1.0 / c2.sqrt()),
                eps: T::from_f64(self.eps),
                decay: T::from_f64(self.weight_decay),
                lr: T::from_f64(self.lr),
                most: self.max_trust.unwrap_or(f64::INFINITY),
                adapt: self.layer_adaptation,
            }
        })
    }
}

/// `scale` is 1 / (1 - b1^t), `root` is 1 / sqrt(1 - b2^t), and `most` is the bound of the ratio.
#[derive(Clone, Copy)]
struct Step<T> {
    moments: Moments<T>,
    scale: T,
    root: T,
    eps: T,
    decay: T,
    lr: T,
    most: f64,
    adapt: bool,
}

impl<T: Float> Step<T> {
    #[inline(always)]
    fn direction(&self, p: T, [m, v]: [T; 2]) -> T {
        self.scale * m / (v.sqrt() * self.root + self.eps) + self.decay * p
    }
}

impl<T: Float> TwoPassRule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [EXP_AVG, EXP_AVG_SQ];
    const FIRST_WRITES: bool = true;
    const SUMS: [Term; 2] = [Term::ParameterSquare, Term::Square];

    #[inline(always)]
    fn first(&self, p: T, g: T, state: [T; 2]) -> ([T; 2], [T; 2]) {
        let state = self.moments.advance(g, state);
        (state, [T::ZERO, self.direction(p, state)])
    }

    fn ratio(&self, sums: Sums, _n: usize) -> f64 {
        let [p, u] = sums.map(f64::sqrt);
        if !self.adapt || p == 0.0 || u == 0.0 {
            return 1.0;
        }
        (p / u).min(self.most)
    }

    #[inline(always)]
    fn second(&self, ratio: T, p: T, _g: T, state: [T; 2]) -> (T, [T; 2]) {
        (p - self.lr * (ratio * self.direction(p, state)), state)
    }
}
