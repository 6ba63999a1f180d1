//! Stochastic gradient descent with momentum (Polyak, 1964; Sutskever et al., 2013).

use super::moments::MOMENTUM_BUFFER;
use crate::error::{Error, Result};
use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// outside:  v = mu v + (1 - dampening) g,  u = v  or  g + mu v (Nesterov),  p -= lr u
    /// inside:   v = mu v - lr g,               p += v  or  mu v - lr g (Nesterov)
    /// ```
    /// The first step of the outside form copies g into v, without dampening.
    pub struct Sgd {
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
        /// Whether the learning rate is applied outside or inside of v.
        momentum_form: String, Kind::Word(&["outside", "inside"]);
    }
    check |sgd| sgd.check()
}

impl Sgd {
    fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::Value(message.to_owned()));
        if self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0) {
            return refuse("nesterov requires momentum > 0 and dampening = 0");
        }
        if self.momentum_form == "inside" && self.dampening != 0.0 {
            return refuse("momentum_form \"inside\" requires dampening = 0");
        }
        Ok(())
    }
}

impl Optimizer for Sgd {
    const OPTIONAL: &'static [StateSpec] = &[MOMENTUM_BUFFER];

    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let lr = T::from_f64(self.lr);
        let mu = T::from_f64(self.momentum);
        let damped = |context: StepContext| {
            T::from_f64(if context.fresh {
                1.0
            } else {
                1.0 - self.dampening
            })
        };
        match (
            self.momentum > 0.0,
            self.momentum_form == "inside",
            self.nesterov,
        ) {
            (false, _, _) => visitor.elementwise(|_| Plain { lr }),
            (true, false, false) => visitor.elementwise(|context| Outside {
                lr,
                mu,
                gc: damped(context),
            }),
            (true, false, true) => visitor.elementwise(|_| Nesterov { lr, mu }),
            (true, true, false) => visitor.elementwise(|_| Inside { lr, mu }),
            (true, true, true) => visitor.elementwise(|_| NesterovInside { lr, mu }),
        }
    }
}

#[derive(Clone, Copy)]
struct Plain<T> {
    lr: T,
}

impl<T: Float> Rule<T, 0> for Plain<T> {
    const STATE: [StateSpec; 0] = [];

    #[inline(always)]
    fn update(&self, p: T, g: T, []: [T; 0]) -> (T, [T; 0]) {
        (p - self.lr * g, [])
    }
}

/// `gc` is 1 - dampening, or 1 at the first step of v.
#[derive(Clone, Copy)]
struct Outside<T> {
    lr: T,
    mu: T,
    gc: T,
}

impl<T: Float> Rule<T, 1> for Outside<T> {
    const STATE: [StateSpec; 1] = [MOMENTUM_BUFFER];
    const EPILOGUES: bool = true;

    #[inline(always)]
    fn update(&self, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let v = self.mu * v + self.gc * g;
        (p - self.lr * v, [v])
    }
}

#[derive(Clone, Copy)]
struct Nesterov<T> {
    lr: T,
    mu: T,
}

impl<T: Float> Rule<T, 1> for Nesterov<T> {
    const STATE: [StateSpec; 1] = [MOMENTUM_BUFFER];
    const EPILOGUES: bool = true;

    #[inline(always)]
    fn update(&self, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let v = self.mu * v + g;
        (p - self.lr * (g + self.mu * v), [v])
    }
}

#[derive(Clone, Copy)]
struct Inside<T> {
    lr: T,
    mu: T,
}

impl<T: Float> Rule<T, 1> for Inside<T> {
    const STATE: [StateSpec; 1] = [MOMENTUM_BUFFER];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let v = self.mu * v - self.lr * g;
        (p + v, [v])
    }
}

#[derive(Clone, Copy)]
struct NesterovInside<T> {
    lr: T,
    mu: T,
}

impl<T: Float> Rule<T, 1> for NesterovInside<T> {
    const STATE: [StateSpec; 1] = [MOMENTUM_BUFFER];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let v = self.mu * v - self.lr * g;
        (p + (self.mu * v - self.lr * g), [v])
    }
}
