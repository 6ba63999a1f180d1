//! LARS (You, Gitman and Ginsburg, 2017).

use super::moments::MOMENTUM_BUFFER;
use crate::error::{Error, Result};
use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Term, TwoPassRule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

hyper! {
    /// ```text
    /// g += wd p
    /// ratio = trust_coefficient norm(p) / (norm(g) + eps), over one array; 1 if a norm is 0
    /// v = mu v + (1 - dampening) ratio g,  p -= lr (v  or  ratio g + mu v (Nesterov))
    /// ```
    /// The first step copies `ratio g` into v.
    pub struct Lars {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// mu. If it is 0 there is no buffer v.
        momentum: f64, NON_NEGATIVE;
        /// Reduces the weight of the gradient in v.
        dampening: f64, NON_NEGATIVE;
        /// Coupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Whether the update is that of Nesterov.
        nesterov: bool, Kind::Flag;
        /// Coefficient of the ratio.
        trust_coefficient: f64, NON_NEGATIVE;
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Whether the ratio is computed. If not it is 1, as usual for biases and norm layers.
        layer_adaptation: bool, Kind::Flag;
    }
    check |lars| lars.check()
}

impl Lars {
    fn check(&self) -> Result<()> {
        if self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0) {
            let message = "nesterov requires momentum > 0 and dampening = 0";
            return Err(Error::Value(message.to_owned()));
        }
        Ok(())
    }

    fn trust(&self) -> Trust {
        Trust {
            coefficient: self.trust_coefficient,
            eps: self.eps,
            adapt: self.layer_adaptation,
        }
    }
}

impl Optimizer for Lars {
    const OPTIONAL: &'static [StateSpec] = &[MOMENTUM_BUFFER];

    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let (lr, mu) = (T::from_f64(self.lr), T::from_f64(self.momentum));
        let trust = self.trust();
        if self.momentum == 0.0 {
            return visitor.two_pass(|_| Plain { trust, lr });
        }
        visitor.two_pass(|context| Momentum {
            trust,
            lr,
            mu,
            gc: T::from_f64(if context.fresh {
                1.0
            } else {
                1.0 - self.dampening
            }),
            nesterov: self.nesterov,
        })
    }
}

#[derive(Clone, Copy)]
struct Trust {
    coefficient: f64,
    eps: f64,
    adapt: bool,
}

impl Trust {
    fn ratio(&self, sums: Sums) -> f64 {
        let [p, g] = sums.map(f64::sqrt);
        if !self.adapt || p == 0.0 || g == 0.0 {
            return 1.0;
        }
        self.coefficient * p / (g + self.eps)
    }
}

#[derive(Clone, Copy)]
struct Plain<T> {
    trust: Trust,
    lr: T,
}

impl<T: Float> TwoPassRule<T, 0> for Plain<T> {
    const STATE: [StateSpec; 0] = [];
    const FIRST_WRITES: bool = false;
    const SUMS: [Term; 2] = [Term::ParameterSquare, Term::GradientSquare];

    #[inline(always)]
    fn first(&self, _p: T, _g: T, []: [T; 0]) -> ([T; 0], [T; 2]) {
        ([], [T::ZERO; 2])
    }

    fn ratio(&self, sums: Sums, _n: usize) -> f64 {
        self.trust.ratio(sums)
    }

    #[inline(always)]
    fn second(&self, ratio: T, p: T, g: T, []: [T; 0]) -> (T, [T; 0]) {
        (p - self.lr * (ratio * g), [])
    }
}

/// `gc` is 1 - dampening, or 1 at the first step of v.
#[derive(Clone, Copy)]
struct Momentum<T> {
    trust: Trust,
    lr: T,
    mu: T,
    gc: T,
    nesterov: bool,
}

impl<T: Float> TwoPassRule<T, 1> for Momentum<T> {
    const STATE: [StateSpec; 1] = [MOMENTUM_BUFFER];
    const FIRST_WRITES: bool = false;
    const SUMS: [Term; 2] = [Term::ParameterSquare, Term::GradientSquare];

    #[inline(always)]
    fn first(&self, _p: T, _g: T, state: [T; 1]) -> ([T; 1], [T; 2]) {
        (state, [T::ZERO; 2])
    }

    fn ratio(&self, sums: Sums, _n: usize) -> f64 {
        self.trust.ratio(sums)
    }

    #[inline(always)]
    fn second(&self, ratio: T, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let g = ratio * g;
        let v = self.mu * v + self.gc * g;
        // The condition is the same for all elements, so the compiler moves it out of the loop.
        let u = if self.nesterov { g + self.mu * v } else { v };
        (p - self.lr * u, [v])
    }
}
