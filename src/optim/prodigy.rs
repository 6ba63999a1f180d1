//! Prodigy (Mishchenko and Defazio, 2023): Adam with an estimated learning rate d.

use super::moments::{EXP_AVG, EXP_AVG_SQ, correction};
use crate::numeric::float::Float;
use crate::optim::hyper::{BETAS, Kind, NON_NEGATIVE, Range, hyper};
use crate::sweep::rule::{Optimizer, Term, TwoPassRule, Visitor};
use crate::sweep::segment::{MAX_SCALARS, StepContext};
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

hyper! {
    /// ```text
    /// l = d lr sqrt(1 - b2^t) / (1 - b1^t)      or d lr without bias correction
    /// m = b1 m + (1 - b1) d g,  v = b2 v + (1 - b2) d^2 g^2
    /// s = b3 s + d / d0 l g                     or d / d0 d g with safeguarded warm-up
    /// n = b3 n + d / d0 l <g, p0 - p>,  d' = d_coef n / norm1(s)
    /// d_max = max(d_max, d'),  d = min(d_max, d growth_rate)
    /// p -= l (m / (sqrt(v) + d eps) + wd p)
    /// ```
    /// The inner product and the norm are over all arrays. l uses d before its update. While d is
    /// still d0, it is raised to at least d' before the growth limit applies.
    pub struct Prodigy {
        /// Factor of d in the step size.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// b3, or `None` for sqrt(b2).
        beta3: Option<f64>, Kind::Optional(Range::Decay);
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Whether weight decay is decoupled: applied to the parameter instead of the gradient.
        decouple: bool, Kind::Flag;
        /// Whether the step size has the bias correction of Adam.
        use_bias_correction: bool, Kind::Flag;
        /// Whether the learning rate is left out of s, as required with warm-up.
        safeguard_warmup: bool, Kind::Flag;
        /// Initial estimate d0.
        d0: f64, Kind::Number(Range::Positive);
        /// Factor of the estimate d'.
        d_coef: f64, NON_NEGATIVE;
        /// Bound of the growth of d per step, which may be infinite.
        growth_rate: f64, Kind::Number(Range::Unbounded);
    }
}

const S: StateSpec = StateSpec::other("s");
const P0: StateSpec = StateSpec::iterate("p0");

impl Optimizer for Prodigy {
    fn coupled_decay(&self) -> f64 {
        if self.decouple {
            0.0
        } else {
            self.weight_decay
        }
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        vec![("d", self.d0), ("d_max", self.d0), ("d_numerator", 0.0)]
    }

    fn rate(&self, context: StepContext) -> Option<f64> {
        Some(self.rate_at(context))
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.two_pass(|context| self.at(context))
    }
}

impl Prodigy {
    /// l, from before d changes.
    fn rate_at(&self, context: StepContext) -> f64 {
        let [b1, b2] = self.betas;
        let [d, ..] = context.scalars;
        let bias_correction = if self.use_bias_correction {
            correction(b2, context.step).sqrt() / correction(b1, context.step)
        } else {
            1.0
        };
        d * self.lr * bias_correction
    }

    fn at<T: Float>(&self, context: StepContext) -> Step<T> {
        let [b1, b2] = self.betas;
        let [d, d_max, d_numerator] = context.scalars;
        let lr = self.rate_at(context);
        let b3 = self.beta3.unwrap_or_else(|| b2.sqrt());
        let of_s = d / self.d0 * if self.safeguard_warmup { d } else { lr };
        let decay = self.weight_decay - self.coupled_decay();
        Step {
            b1: T::from_f64(b1),
            b1c: T::from_f64(d * (1.0 - b1)),
            b2: T::from_f64(b2),
            b2c: T::from_f64(d * d * (1.0 - b2)),
            b3: T::from_f64(b3),
            of_s: T::from_f64(of_s),
            eps: T::from_f64(self.eps),
            lr: T::from_f64(lr),
            decay: T::from_f64(decay),
            fresh: context.fresh,
            estimate: Estimate {
                d,
                d_max,
                numerator: b3 * d_numerator,
                of_product: d / self.d0 * lr,
                first: d == self.d0,
                d_coef: self.d_coef,
                growth_rate: self.growth_rate,
                fixed: self.lr == 0.0,
            },
        }
    }
}

/// `b1c` and `b2c` include d; `of_s` is the coefficient of g in s. Decoupled decay is a separate
/// term and not a factor of p, because 1 - l wd rounds to 1 while l is small.
#[derive(Clone, Copy)]
struct Step<T> {
    b1: T,
    b1c: T,
    b2: T,
    b2c: T,
    b3: T,
    of_s: T,
    eps: T,
    lr: T,
    decay: T,
    fresh: bool,
    estimate: Estimate,
}

/// The computation of the next d from the sums.
#[derive(Clone, Copy)]
struct Estimate {
    d: f64,
    d_max: f64,
    numerator: f64,
    of_product: f64,
    first: bool,
    d_coef: f64,
    growth_rate: f64,
    fixed: bool,
}

impl Estimate {
    /// Returns d, d_max and the numerator after the step, or `None` if all gradients so far or the
    /// learning rate are 0.
    fn next(&self, [product, norm]: Sums) -> Option<[f64; MAX_SCALARS]> {
        if norm == 0.0 || self.fixed {
            return None;
        }
        let numerator = self.numerator + self.of_product * product;
        let found = self.d_coef * numerator / norm;
        let d = if self.first {
            self.d.max(found)
        } else {
            self.d
        };
        let d_max = self.d_max.max(found);
        Some([d_max.min(d * self.growth_rate), d_max, numerator])
    }
}

impl<T: Float> TwoPassRule<T, 4> for Step<T> {
    const STATE: [StateSpec; 4] = [EXP_AVG, EXP_AVG_SQ, S, P0];
    const FIRST_WRITES: bool = true;
    const SUMS: [Term; 2] = [Term::Value; 2];
    const GLOBAL: bool = true;

    #[inline(always)]
    fn moves(&self, state: usize) -> bool {
        // p0 is set once.
        self.fresh || state != 3
    }

    #[inline(always)]
    fn first(&self, p: T, g: T, [m, v, s, p0]: [T; 4]) -> ([T; 4], [T; 2]) {
        let p0 = if self.fresh { p } else { p0 };
        if self.lr == T::ZERO {
            return ([m, v, s, p0], [T::ZERO; 2]);
        }
        let m = self.b1 * m + self.b1c * g;
        let v = self.b2 * v + self.b2c * g * g;
        let s = (self.b3 * s + self.of_s * g).flush(T::MIN_POSITIVE);
        ([m, v, s, p0], [g * (p0 - p), s.abs()])
    }

    fn ratio(&self, sums: Sums, _n: usize) -> f64 {
        self.estimate.next(sums).map_or(0.0, |[d, ..]| d)
    }

    #[inline(always)]
    fn second(&self, d: T, p: T, _g: T, state: [T; 4]) -> (T, [T; 4]) {
        let [m, v, ..] = state;
        let u = m / (v.sqrt() + d * self.eps) + self.decay * p;
        // There is no estimate yet, or the learning rate is 0.
        let still = d == T::ZERO || self.lr == T::ZERO;
        (if still { p } else { p - self.lr * u }, state)
    }

    fn scalars(&self, sums: Sums) -> Option<[f64; MAX_SCALARS]> {
        self.estimate.next(sums)
    }
}
