//! Schedule-Free SGD and AdamW (Defazio et al., 2024).
//!
//! ```text
//! p = (1 - c) p + c z - lr (1 - b1 (1 - c)) u
//! z = z - lr u
//! c = w_t / (w_1 + ... + w_t),  w_t = t^r max(lr)^power
//! ```
//! p is the point y at which gradients are computed; z starts as p. The averaged iterate is
//! `x = (p - (1 - b1) z) / b1`. [`blend`] converts one into the other.

use super::moments::{EXP_AVG_SQ, correction};
use crate::numeric::float::Float;
use crate::ops::lerp::lerp;
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::storage::view::StorageView;
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::{MAX_SCALARS, StepContext};
use crate::sweep::state::StateSpec;

/// The hyperparameters of both optimizers, which differ in the direction u.
struct Schedule {
    lr: f64,
    momentum: f64,
    warmup_steps: u64,
    r: f64,
    weight_lr_power: f64,
}

/// The scalars of one step.
struct At {
    lr: f64,
    /// c
    mix: f64,
    weight_sum: f64,
    lr_max: f64,
}

impl Schedule {
    fn at(&self, context: StepContext) -> At {
        let t = context.step as f64;
        let [weight_sum, lr_max, _] = context.scalars;
        let warmup = self.warmup_steps as f64;
        let lr = self.lr * if t < warmup { t / warmup } else { 1.0 };
        let lr_max = lr_max.max(lr);
        let weight = t.powf(self.r) * lr_max.powf(self.weight_lr_power);
        let weight_sum = weight_sum + weight;
        let mix = if weight_sum == 0.0 {
            0.0
        } else {
            weight / weight_sum
        };
        At {
            lr,
            mix,
            weight_sum,
            lr_max,
        }
    }

    fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
        let at = self.at(*context);
        [at.weight_sum, at.lr_max, 0.0]
    }

    fn interpolate<T: Float>(&self, context: StepContext, decay: f64) -> Interpolate<T> {
        let At { lr, mix, .. } = self.at(context);
        Interpolate {
            mix: T::from_f64(mix),
            lr: T::from_f64(lr),
            lr_p: T::from_f64(lr * (self.momentum * (1.0 - mix) - 1.0)),
            decay: T::from_f64(decay),
            fresh: context.fresh,
        }
    }
}

/// The sequence z, which gradient steps update.
const Z: StateSpec = StateSpec::iterate("z");

const SCALARS: [(&str, f64); 2] = [("weight_sum", 0.0), ("lr_max", 0.0)];

/// `lr_p` is the coefficient of u in the update of p.
#[derive(Clone, Copy)]
struct Interpolate<T> {
    mix: T,
    lr: T,
    lr_p: T,
    decay: T,
    fresh: bool,
}

impl<T: Float> Interpolate<T> {
    #[inline(always)]
    fn update(&self, p: T, u: T, z: T) -> (T, T) {
        let z = if self.fresh { p } else { z };
        let u = u + self.decay * p;
        (p + self.mix * (z - p) + self.lr_p * u, z - self.lr * u)
    }
}

hyper! {
    /// u is the gradient with coupled weight decay, and b1 is the momentum.
    pub struct ScheduleFreeSGD {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1, the weight of x in p.
        momentum: f64, Kind::Number(Range::Inside);
        /// Weight decay, evaluated at p.
        weight_decay: f64, NON_NEGATIVE;
        /// Number of warm-up steps of the learning rate.
        warmup_steps: u64, Kind::Count(1 << 53);
        /// Power r of t in the weights of the average.
        r: f64, Kind::Number(Range::Finite);
        /// Power of the largest learning rate in the weights of the average.
        weight_lr_power: f64, Kind::Number(Range::Finite);
    }
}

impl ScheduleFreeSGD {
    fn schedule(&self) -> Schedule {
        Schedule {
            lr: self.lr,
            momentum: self.momentum,
            warmup_steps: self.warmup_steps,
            r: self.r,
            weight_lr_power: self.weight_lr_power,
        }
    }
}

impl Optimizer for ScheduleFreeSGD {
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        SCALARS.to_vec()
    }

    fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
        self.schedule().advance(context)
    }

    fn averaging(&self) -> Option<f64> {
        Some(self.momentum)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        visitor.elementwise(|context| Sgd(self.schedule().interpolate(context, self.weight_decay)))
    }
}

#[derive(Clone, Copy)]
struct Sgd<T>(Interpolate<T>);

impl<T: Float> Rule<T, 1> for Sgd<T> {
    const STATE: [StateSpec; 1] = [Z];

    #[inline(always)]
    fn update(&self, p: T, g: T, [z]: [T; 1]) -> (T, [T; 1]) {
        let (p, z) = self.0.update(p, g, z);
        (p, [z])
    }
}

hyper! {
    /// `u = g / (sqrt(v / (1 - b2^t)) + eps) + wd p` with `v = b2 v + (1 - b2) g^2`.
    pub struct ScheduleFreeAdamW {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], Kind::Numbers(&[Range::Inside, Range::Decay]);
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Weight decay, evaluated at p.
        weight_decay: f64, NON_NEGATIVE;
        /// Number of warm-up steps of the learning rate.
        warmup_steps: u64, Kind::Count(1 << 53);
        /// Power r of t in the weights of the average.
        r: f64, Kind::Number(Range::Finite);
        /// Power of the largest learning rate in the weights of the average.
        weight_lr_power: f64, Kind::Number(Range::Finite);
    }
}

impl ScheduleFreeAdamW {
    fn schedule(&self) -> Schedule {
        Schedule {
            lr: self.lr,
            momentum: self.betas[0],
            warmup_steps: self.warmup_steps,
            r: self.r,
            weight_lr_power: self.weight_lr_power,
        }
    }
}

impl Optimizer for ScheduleFreeAdamW {
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        SCALARS.to_vec()
    }

    fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
        self.schedule().advance(context)
    }

    fn averaging(&self) -> Option<f64> {
        Some(self.betas[0])
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let b2 = self.betas[1];
        visitor.elementwise(|context| Adam {
            interpolate: self.schedule().interpolate(context, self.weight_decay),
            b2: T::from_f64(b2),
            b2c: T::from_f64(1.0 - b2),
            root: T::from_f64(1.0 / correction(b2, context.step).sqrt()),
            eps: T::from_f64(self.eps),
        })
    }
}

/// `b2c` is 1 - b2; `root` is 1 / sqrt(1 - b2^t).
#[derive(Clone, Copy)]
struct Adam<T> {
    interpolate: Interpolate<T>,
    b2: T,
    b2c: T,
    root: T,
    eps: T,
}

impl<T: Float> Rule<T, 2> for Adam<T> {
    const STATE: [StateSpec; 2] = [Z, EXP_AVG_SQ];

    #[inline(always)]
    fn update(&self, p: T, g: T, [z, v]: [T; 2]) -> (T, [T; 2]) {
        let v = self.b2 * v + self.b2c * g * g;
        let u = g / (v.sqrt() * self.root + self.eps);
        let (p, z) = self.interpolate.update(p, u, z);
        (p, [z, v])
    }
}

/// Returns the weight of [`blend`] from y, where gradients are computed, to the average x.
pub fn average_weight(beta: f64) -> f64 {
    1.0 - 1.0 / beta
}

/// Returns the weight of [`blend`] from the average x back to y.
pub fn gradient_weight(beta: f64) -> f64 {
    1.0 - beta
}

/// Computes `p += weight (z - p)`.
///
/// # Panics
/// The lengths differ, or `p` is read-only.
pub fn blend<T: Float>(p: StorageView<'_, T>, z: StorageView<'_, T>, weight: f64) {
    lerp(vec![(p, z)], weight);
}
