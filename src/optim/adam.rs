//! Adam (Kingma and Ba, 2015), AdamW (Loshchilov and Hutter, 2019), AMSGrad (Reddi et al., 2018).

use super::{Optimizer, Rule, Visitor};
use crate::float::Float;
use crate::hyper::{BETAS, Kind, NON_NEGATIVE, hyper};
use crate::segment::Clock;

hyper! {
    /// ```text
    /// m = b1 m + (1 - b1) g
    /// v = b2 v + (1 - b2) g^2
    /// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    /// ```
    /// AMSGrad divides by the largest v so far. AdamW is Adam with decoupled weight decay: p is
    /// first multiplied by 1 - lr wd, and the gradient is left alone.
    pub struct Adam {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// b1 and b2.
        betas: [f64; 2], BETAS;
        /// Keeps the divisor from 0.
        eps: f64, NON_NEGATIVE;
        /// Weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// Divides by the largest v so far.
        amsgrad: bool, Kind::Flag;
        /// Decays the parameter and not the gradient.
        decoupled_weight_decay: bool, Kind::Flag;
    }
}

impl Optimizer for Adam {
    fn coupled_decay(&self) -> f64 {
        if self.decoupled_weight_decay {
            0.0
        } else {
            self.weight_decay
        }
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        if self.amsgrad {
            visitor.elementwise(|clock| AmsGrad(self.at(clock)))
        } else {
            visitor.elementwise(|clock| self.at(clock))
        }
    }
}

impl Adam {
    fn at<T: Float>(&self, clock: Clock) -> Moments<T> {
        let [b1, b2] = self.betas;
        // 1 - b^t, without the cancellation where b^t is near 1.
        let correction = |b: f64| -(clock.step as f64 * b.ln()).exp_m1();
        let decay = if self.decoupled_weight_decay {
            self.weight_decay
        } else {
            0.0
        };
        Moments {
            b1: T::from_f64(b1),
            b1c: T::from_f64(1.0 - b1),
            b2: T::from_f64(b2),
            b2c: T::from_f64(1.0 - b2),
            root: T::from_f64(1.0 / correction(b2).sqrt()),
            eps: T::from_f64(self.eps),
            lr: T::from_f64(self.lr / correction(b1)),
            keep: T::from_f64(1.0 - self.lr * decay),
        }
    }
}

/// `b1c` is 1 - b1, `root` is 1 / sqrt(1 - b2^t), `lr` has the correction of m in it, and `keep` is
/// what decoupled decay leaves of p.
#[derive(Clone, Copy)]
struct Moments<T> {
    b1: T,
    b1c: T,
    b2: T,
    b2c: T,
    root: T,
    eps: T,
    lr: T,
    keep: T,
}

impl<T: Float> Moments<T> {
    #[inline(always)]
    fn advance(&self, g: T, m: T, v: T) -> (T, T) {
        let m = (self.b1 * m + self.b1c * g).flush();
        let v = self.b2 * v + self.b2c * (g * g);
        // Where m is not 0 a subnormal v still counts against a tiny eps.
        (m, if m == T::ZERO { v.flush() } else { v })
    }

    #[inline(always)]
    fn apply(&self, p: T, m: T, v: T) -> T {
        p * self.keep - self.lr * m / (v.sqrt() * self.root + self.eps)
    }
}

impl<T: Float> Rule<T, 2> for Moments<T> {
    const STATE: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    #[inline(always)]
    fn update(&self, p: T, g: T, [m, v]: [T; 2]) -> (T, [T; 2]) {
        let (m, v) = self.advance(g, m, v);
        (self.apply(p, m, v), [m, v])
    }
}

#[derive(Clone, Copy)]
struct AmsGrad<T>(Moments<T>);

impl<T: Float> Rule<T, 3> for AmsGrad<T> {
    const STATE: [&'static str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

    #[inline(always)]
    fn update(&self, p: T, g: T, [m, v, largest]: [T; 3]) -> (T, [T; 3]) {
        let (m, v) = self.0.advance(g, m, v);
        let largest = largest.max_or_nan(v);
        (self.0.apply(p, m, largest), [m, v, largest])
    }
}
