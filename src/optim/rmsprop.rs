//! RMSprop (Hinton, 2012), centered (Graves, 2013).

use super::moments::{MOMENTUM_BUFFER, SQUARE_AVG};
use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// v = a v + (1 - a) g^2
    /// p -= lr g / (sqrt(v) + eps)          or lr g / sqrt(v + eps)
    /// ```
    /// Centered: the square of the mean gradient is subtracted from v, and the difference is at
    /// least 0. With momentum: `b = mu b + g / (...)` and `p -= lr b`.
    pub struct RMSprop {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// Decay rate a.
        alpha: f64, Kind::Number(Range::Unit);
        /// Added to the denominator for numerical stability.
        eps: f64, NON_NEGATIVE;
        /// Coupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// mu. If it is 0 there is no buffer b.
        momentum: f64, NON_NEGATIVE;
        /// Whether the gradient is divided by its estimated standard deviation.
        centered: bool, Kind::Flag;
        /// Whether eps is added under the square root.
        eps_inside_sqrt: bool, Kind::Flag;
    }
}

const GRAD_AVG: StateSpec = StateSpec::first_moment("grad_avg");

impl Optimizer for RMSprop {
    const OPTIONAL: &'static [StateSpec] = &[MOMENTUM_BUFFER, GRAD_AVG];

    fn coupled_decay(&self) -> f64 {
        self.weight_decay
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let (inside, outside) = if self.eps_inside_sqrt {
            (self.eps, 0.0)
        } else {
            (0.0, self.eps)
        };
        let scaled = Scaled {
            a: T::from_f64(self.alpha),
            ac: T::from_f64(1.0 - self.alpha),
            inside: T::from_f64(inside),
            outside: T::from_f64(outside),
            lr: T::from_f64(self.lr),
            mu: T::from_f64(self.momentum),
        };
        match (self.centered, self.momentum > 0.0) {
            (false, false) => visitor.elementwise(|_| Plain(scaled)),
            (true, false) => visitor.elementwise(|_| Centered(scaled)),
            (false, true) => visitor.elementwise(|_| Momentum(scaled)),
            (true, true) => visitor.elementwise(|_| CenteredMomentum(scaled)),
        }
    }
}

/// `ac` is 1 - a; eps is `inside` or `outside` of the square root, and the other one is 0.
#[derive(Clone, Copy)]
struct Scaled<T> {
    a: T,
    ac: T,
    inside: T,
    outside: T,
    lr: T,
    mu: T,
}

impl<T: Float> Scaled<T> {
    #[inline(always)]
    fn square(&self, g: T, v: T) -> T {
        self.a * v + self.ac * g * g
    }

    #[inline(always)]
    fn mean(&self, g: T, mean: T) -> T {
        self.a * mean + self.ac * g
    }

    /// Returns the gradient divided by its root mean square.
    #[inline(always)]
    fn gradient(&self, g: T, v: T) -> T {
        g / ((v + self.inside).sqrt() + self.outside)
    }

    #[inline(always)]
    fn centered(&self, g: T, v: T, mean: T) -> T {
        let variance = v - mean * mean;
        let variance = if variance < T::ZERO {
            T::ZERO
        } else {
            variance
        };
        // The squares have overflowed: such a gradient does not change p, as without centering.
        let variance = if v == T::INFINITY { v } else { variance };
        self.gradient(g, variance)
    }

    #[inline(always)]
    fn buffer(&self, u: T, b: T) -> T {
        self.mu * b + u
    }
}

#[derive(Clone, Copy)]
struct Plain<T>(Scaled<T>);

impl<T: Float> Rule<T, 1> for Plain<T> {
    const STATE: [StateSpec; 1] = [SQUARE_AVG];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v]: [T; 1]) -> (T, [T; 1]) {
        let v = self.0.square(g, v);
        (p - self.0.lr * self.0.gradient(g, v), [v])
    }
}

#[derive(Clone, Copy)]
struct Centered<T>(Scaled<T>);

impl<T: Float> Rule<T, 2> for Centered<T> {
    const STATE: [StateSpec; 2] = [SQUARE_AVG, GRAD_AVG];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v, mean]: [T; 2]) -> (T, [T; 2]) {
        let (v, mean) = (self.0.square(g, v), self.0.mean(g, mean));
        (p - self.0.lr * self.0.centered(g, v, mean), [v, mean])
    }
}

#[derive(Clone, Copy)]
struct Momentum<T>(Scaled<T>);

impl<T: Float> Rule<T, 2> for Momentum<T> {
    const STATE: [StateSpec; 2] = [SQUARE_AVG, MOMENTUM_BUFFER];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v, b]: [T; 2]) -> (T, [T; 2]) {
        let v = self.0.square(g, v);
        let b = self.0.buffer(self.0.gradient(g, v), b);
        (p - self.0.lr * b, [v, b])
    }
}

#[derive(Clone, Copy)]
struct CenteredMomentum<T>(Scaled<T>);

impl<T: Float> Rule<T, 3> for CenteredMomentum<T> {
    const STATE: [StateSpec; 3] = [SQUARE_AVG, MOMENTUM_BUFFER, GRAD_AVG];

    #[inline(always)]
    fn update(&self, p: T, g: T, [v, b, mean]: [T; 3]) -> (T, [T; 3]) {
        let (v, mean) = (self.0.square(g, v), self.0.mean(g, mean));
        let b = self.0.buffer(self.0.centered(g, v, mean), b);
        (p - self.0.lr * b, [v, b, mean])
    }
}
