//! The traits of an optimizer: hyperparameters that select a rule of one of three kinds.

use crate::error::Result;
use crate::exec::isa::Tier;
use crate::numeric::float::Float;
use crate::optim::hyper::Hyper;
use crate::sweep::segment::{MAX_SCALARS, StepContext};
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

/// An update of one element, as a pure function without branches.
pub(crate) trait Rule<T, const S: usize>: Copy + Send + Sync {
    /// The state arrays.
    const STATE: [StateSpec; S];

    /// Whether loops over native arrays with the usual epilogues are compiled, too.
    const EPILOGUES: bool = false;

    /// Returns the new parameter and state. `g` is the gradient after its prologue.
    fn update(&self, p: T, g: T, state: [T; S]) -> (T, [T; S]);
}

/// What a sum of a [`TwoPassRule`] adds up over the elements, after the first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// 0.
    Nothing,
    /// The value that the first pass returns.
    Value,
    /// Its square.
    Square,
    /// 1 if the value is not 0.
    Count,
    /// The square of the parameter. This and what follows is read from the array itself.
    ParameterSquare,
    /// The square of the gradient.
    GradientSquare,
}

impl Term {
    /// Returns whether the first pass computes the value.
    pub(crate) const fn is_computed(self) -> bool {
        matches!(self, Self::Count) || self.is_stored()
    }

    /// Returns whether the first pass stores the value.
    pub(crate) const fn is_stored(self) -> bool {
        matches!(self, Self::Value | Self::Square)
    }
}

/// An update of an array in two passes, with two sums over the array in between.
pub(crate) trait TwoPassRule<T, const S: usize>: Copy + Send + Sync {
    /// The state arrays.
    const STATE: [StateSpec; S];

    /// Whether the first pass writes the state. Otherwise the second pass does.
    const FIRST_WRITES: bool;

    /// Whether the sums are over all arrays of the step.
    const GLOBAL: bool = false;

    /// The sums. [`Term::Count`] may only be the first.
    const SUMS: [Term; 2];

    /// Returns whether the first pass changes a state array. Arrays that it does not change are not
    /// written.
    #[inline(always)]
    fn moves(&self, _state: usize) -> bool {
        true
    }

    /// Returns the new state and the values of the sums whose terms are computed.
    fn first(&self, p: T, g: T, state: [T; S]) -> ([T; S], [T; 2]);

    /// Computes the argument of the second pass from the sums over `n` elements.
    fn ratio(&self, sums: Sums, n: usize) -> f64;

    /// Returns the new parameter and state. `state` is the state after the first pass.
    fn second(&self, ratio: T, p: T, g: T, state: [T; S]) -> (T, [T; S]);

    /// Returns the scalars of the state after the step, if they depend on the sums.
    fn scalars(&self, _sums: Sums) -> Option<[f64; MAX_SCALARS]> {
        None
    }
}

/// An update of a whole array, which may depend on its shape.
pub(crate) trait TensorRule<T>: Copy + Send + Sync {
    /// Returns the state arrays of a parameter with `rank` dimensions.
    fn state(rank: usize) -> &'static [StateSpec];

    /// Returns the shape of the state array `name` of a parameter of `shape`.
    fn state_shape(name: &str, shape: &[usize]) -> Vec<usize>;

    /// Updates one parameter. It may use several threads.
    fn update(&self, shape: &[usize], p: &mut [T], g: &[T], state: Vec<&mut [T]>, tier: Tier);
}

/// The hyperparameters of an optimizer and the rule that they select.
pub(crate) trait Optimizer: Hyper {
    /// The state arrays that only some values of the hyperparameters require. They are retained
    /// when the hyperparameters change.
    const OPTIONAL: &'static [StateSpec] = &[];

    /// Returns the coupled weight decay, which the prologue adds to the gradient. 0 if the rule
    /// applies the decay itself.
    fn coupled_decay(&self) -> f64 {
        0.0
    }

    /// Returns the learning rate at the step of `context`, with which the updated parameters are
    /// soft-thresholded, or `None` if that is undefined: the steps have sizes of their own, or the
    /// parameters are averages.
    fn rate(&self, _context: StepContext) -> Option<f64> {
        None
    }

    /// Returns the names and the initial values of the scalars in a parameter's state.
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Returns the scalars after the step of `context`, unless [`TwoPassRule::scalars`] does.
    fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
        context.scalars
    }

    /// Checks that the rule supports parameters of this shape.
    ///
    /// # Errors
    /// It does not.
    fn check_shape(&self, _shape: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Returns the interpolation coefficient `beta` of schedule-free optimizers: the parameters are
    /// `beta` times the averaged iterate plus `1 - beta` times the first state array.
    fn averaging(&self) -> Option<f64> {
        None
    }

    /// Calls the visitor with the rule that these hyperparameters select, as a function of the
    /// context. That function computes every per-step scalar in `f64` and rounds it once.
    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output;
}

/// An operation on the rule of an optimizer, generic over the kind of rule and its number of
/// states.
pub(crate) trait Visitor<T: Float>: Sized {
    /// The result.
    type Output;
    /// Visits an elementwise rule.
    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output;
    /// Visits a rule with two passes.
    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output;
    /// Visits a rule that updates whole arrays.
    fn tensorwise<R: TensorRule<T> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output;
}
