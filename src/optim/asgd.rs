//! Averaged stochastic gradient descent (Polyak and Juditsky, 1992).

use crate::numeric::float::Float;
use crate::optim::hyper::{NON_NEGATIVE, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::{MAX_SCALARS, StepContext};
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// p = (1 - lambd eta) p - eta g
    /// ax += mu (p - ax)
    /// eta = lr / (1 + lambd lr t)^alpha,  mu = 1 / max(1, t - t0)       for the next step
    /// ```
    pub struct ASGD {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// Decay coefficient.
        lambd: f64, NON_NEGATIVE;
        /// Exponent in the decay of eta.
        alpha: f64, NON_NEGATIVE;
        /// The step at which averaging begins.
        t0: f64, NON_NEGATIVE;
        /// Coupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
    }
}

const AX: StateSpec = StateSpec::iterate("ax");

impl Optimizer for ASGD {
    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        vec![("eta", self.lr), ("mu", 1.0)]
    }

    fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
        let t = context.step as f64;
        let eta = self.lr / (1.0 + self.lambd * self.lr * t).powf(self.alpha);
        [eta, 1.0 / (t - self.t0).max(1.0), 0.0]
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.elementwise(|context| {
            let [eta, mu, _] = context.scalars;
            // The learning rate may have changed since the parameter was added.
            let eta = if context.step == 1 { self.lr } else { eta };
            Step {
                eta: T::from_f64(eta),
                keep: T::from_f64(1.0 - self.lambd * eta),
                mu: T::from_f64(mu),
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Step<T> {
    eta: T,
    keep: T,
    mu: T,
}

impl<T: Float> Rule<T, 1> for Step<T> {
    const STATE: [StateSpec; 1] = [AX];

    #[inline(always)]
    fn update(&self, p: T, g: T, [ax]: [T; 1]) -> (T, [T; 1]) {
        let p = p * self.keep - self.eta * g;
        // Exactly p if mu is 1.
        let ax = if self.mu == T::ONE {
            p
        } else {
            ax + (p - ax) * self.mu
        };
        (p, [ax])
    }
}
