//! Rprop (Riedmiller and Braun, 1993), in the variant that sets a gradient to 0 if its sign
//! changed.

use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::sweep::rule::{Optimizer, Rule, Visitor};
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// s = clamp(s * (b if g g_last > 0, a if g g_last < 0, 1 if it is 0), step_sizes)
    /// g = 0 if g g_last < 0
    /// p -= s sign(g)
    /// ```
    /// with a and b from `etas`; s starts as lr.
    pub struct Rprop {
        /// Initial step size.
        lr: f64, NON_NEGATIVE;
        /// Factors by which a step size decreases and increases.
        etas: [f64; 2], Kind::Numbers(&[Range::Inside, Range::Above1]);
        /// Smallest and largest step size.
        step_sizes: [f64; 2], Kind::Numbers(&[Range::NonNegative, Range::NonNegative]);
    }
}

const PREV: StateSpec = StateSpec::other("prev");
const STEP_SIZE: StateSpec = StateSpec::other("step_size").non_negative();

impl Optimizer for Rprop {
    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let [shrink, grow] = self.etas.map(T::from_f64);
        let [least, most] = self.step_sizes.map(T::from_f64);
        visitor.elementwise(|context| Step {
            shrink,
            grow,
            least,
            most,
            start: T::from_f64(if context.fresh { self.lr } else { 0.0 }),
        })
    }
}

/// `start` is added to the step sizes: their initial value at the first step, 0 afterwards.
#[derive(Clone, Copy)]
struct Step<T> {
    shrink: T,
    grow: T,
    least: T,
    most: T,
    start: T,
}

impl<T: Float> Rule<T, 2> for Step<T> {
    const STATE: [StateSpec; 2] = [PREV, STEP_SIZE];

    #[inline(always)]
    fn update(&self, p: T, g: T, [last, s]: [T; 2]) -> (T, [T; 2]) {
        let agreement = g * last;
        let turned = agreement < T::ZERO;
        let factor = if agreement > T::ZERO {
            self.grow
        } else {
            T::ONE
        };
        let factor = if turned { self.shrink } else { factor };
        let s = (s + self.start) * factor;
        let s = if s < self.least { self.least } else { s };
        let s = if s > self.most { self.most } else { s };
        let g = if turned { T::ZERO } else { g };
        (p - s * g.sign(), [g, s])
    }
}
