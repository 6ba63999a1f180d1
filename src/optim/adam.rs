//! Adam (Kingma and Ba, 2015), AdamW (Loshchilov and Hutter, 2019), AMSGrad (Reddi et al., 2018).

use super::cautious::{Cautious, Directed};
use super::moments::{EXP_AVG, EXP_AVG_SQ, Moments, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, Kind, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// m = b1 m + (1 - b1) g
    /// v = b2 v + (1 - b2) g^2
    /// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    /// ```
    /// AMSGrad replaces v by its maximum over all steps. AdamW is Adam with decoupled weight decay:
    /// p is multiplied by 1 - lr wd before the update, and the gradient is unchanged.
    pub struct Adam {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Replaces v by its maximum over all steps.
        amsgrad: bool, Kind::Flag;
        /// Whether weight decay is decoupled: applied to the parameter instead of the gradient.
        decoupled_weight_decay: bool, Kind::Flag;
        /// Whether elements of the step whose sign differs from the gradient are masked.
        cautious: bool, Kind::Flag;
    }
}

/// The maximum of v in AMSGrad. It never decreases, so stochastic rounding would bias it upwards.
const MAX_EXP_AVG_SQ: StateSpec = StateSpec::second_moment("max_exp_avg_sq").rounded_to_nearest();

impl Optimizer for Adam {
    const OPTIONAL: &'static [StateSpec] = &[MAX_EXP_AVG_SQ];

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
        match (self.amsgrad, self.cautious) {
            (false, false) => visitor.elementwise(|context| self.at(context)),
            (true, false) => visitor.elementwise(|context| AmsGrad(self.at(context))),
            (false, true) => visitor.two_pass(|context| Cautious(self.at(context))),
            (true, true) => visitor.two_pass(|context| Cautious(AmsGrad(self.at(context)))),
        }
    }
}

impl Adam {
    fn at<T: Float>(&self, context: StepContext) -> Step<T> {
        let [b1, b2] = self.betas;
        let decay = self.weight_decay - self.coupled_decay();
        Step {
            moments: Moments::new(self.betas),
            root: T::from_f64(1.0 / correction(b2, context.step).sqrt()),
            eps: T::from_f64(self.eps),
            lr: T::from_f64(self.lr / correction(b1, context.step)),
            keep: T::from_f64(1.0 - self.lr * decay),
        }
    }
}

/// `root` is 1 / sqrt(1 - b2^t), `lr` is lr / (1 - b1^t), and `keep` is the factor of p by
/// decoupled weight decay.
#[derive(Clone, Copy)]
struct Step<T> {
    moments: Moments<T>,
    root: T,
    eps: T,
    lr: T,
    keep: T,
}

impl<T: Float> Step<T> {
    #[inline(always)]
    fn of(&self, m: T, v: T) -> T {
        self.lr * m / (v.sqrt() * self.root + self.eps)
    }
}

impl<T: Float> Rule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [EXP_AVG, EXP_AVG_SQ];
    const EPILOGUES: bool = true;

    #[inline(always)]
    fn update(&self, p: T, g: T, state: [T; 2]) -> (T, [T; 2]) {
        let (u, state) = self.direction(g, state);
        (p * self.keep - u, state)
    }
}

impl<T: Float> Directed<T, 2> for Step<T> {
    fn keep(&self) -> T {
        self.keep
    }

    #[inline(always)]
    fn direction(&self, g: T, state: [T; 2]) -> (T, [T; 2]) {
        let [m, v] = self.moments.advance(g, state);
        (self.of(m, v), [m, v])
    }

    #[inline(always)]
    fn sense(&self, g: T, state: [T; 2]) -> T {
        self.moments.advance(g, state)[0]
    }
}

#[derive(Clone, Copy)]
struct AmsGrad<T>(Step<T>);

impl<T: Float> Rule<T, 3> for AmsGrad<T> {
    const STATE: [StateSpec; 3] = [EXP_AVG, EXP_AVG_SQ, MAX_EXP_AVG_SQ];

    #[inline(always)]
    fn update(&self, p: T, g: T, state: [T; 3]) -> (T, [T; 3]) {
        let (u, state) = self.direction(g, state);
        (p * self.0.keep - u, state)
    }
}

impl<T: Float> Directed<T, 3> for AmsGrad<T> {
    fn keep(&self) -> T {
        self.0.keep
    }

    #[inline(always)]
    fn direction(&self, g: T, [m, v, largest]: [T; 3]) -> (T, [T; 3]) {
        let [m, v] = self.0.moments.advance(g, [m, v]);
        let largest = largest.max_or_nan(v);
        (self.0.of(m, largest), [m, v, largest])
    }

    #[inline(always)]
    fn sense(&self, g: T, [m, v, _]: [T; 3]) -> T {
        self.0.moments.advance(g, [m, v])[0]
    }
}
