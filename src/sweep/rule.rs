//! What an optimizer is: hyperparameters that select a rule, of one of three shapes.

use crate::error::Result;
use crate::exec::isa::Tier;
use crate::numeric::float::Float;
use crate::optim::hyper::Hyper;
use crate::sweep::segment::{MAX_SCALARS, StepContext};
use crate::sweep::state::StateSpec;
use crate::sweep::task::Sums;

/// What an optimizer does to one element: values in, values out, no branch.
pub(crate) trait Rule<T, const S: usize>: Copy + Send + Sync {
    /// The state arrays.
    const STATE: [StateSpec; S];

    /// The new parameter and state, from the parameter, its prepared gradient and its state.
    fn update(&self, p: T, g: T, state: [T; S]) -> (T, [T; S]);
}

/// What an optimizer does to an array in two passes, with two sums over the array in between.
pub(crate) trait TwoPassRule<T, const S: usize>: Copy + Send + Sync {
    /// The state arrays.
    const STATE: [StateSpec; S];

    /// Whether the state is new after the first pass. It is after the second otherwise.
    const FIRST_WRITES: bool;

    /// Whether the sums are taken over all arrays together.
    const GLOBAL: bool = false;

    /// Whether it is the squares of the values that are summed.
    const SQUARED: bool;

    /// The new state, and the values of which the sums are taken.
    fn first(&self, p: T, g: T, state: [T; S]) -> ([T; S], [T; 2]);

    /// The number that the second pass works by, from the sums over `n` elements.
    fn ratio(&self, sums: Sums, n: usize) -> f64;

    /// The new parameter and state. The state is what the first pass left.
    fn second(&self, ratio: T, p: T, g: T, state: [T; S]) -> (T, [T; S]);

    /// The numbers in the state after the step, where they come from the sums.
    fn scalars(&self, _sums: Sums) -> Option<[f64; MAX_SCALARS]> {
        None
    }
}

/// What an optimizer does to an array as a whole, by its shape.
pub(crate) trait TensorRule<T>: Copy + Send + Sync {
    /// The state arrays of a parameter with this many dimensions.
    fn state(rank: usize) -> &'static [StateSpec];

    /// The shape of one of them.
    fn state_shape(name: &str, shape: &[usize]) -> Vec<usize>;

    /// Updates one parameter. It may spread its own work over threads.
    fn update(&self, shape: &[usize], p: &mut [T], g: &[T], state: Vec<&mut [T]>, tier: Tier);
}

/// Hyperparameters that know their rules.
pub(crate) trait Optimizer: Hyper {
    /// The state arrays that only some hyperparameters ask for. They stay when those change.
    const OPTIONAL: &'static [StateSpec] = &[];

    /// The weight decay that is added to the gradient, where the rule does not decay by itself.
    fn coupled_decay(&self) -> f64 {
        0.0
    }

    /// The learning rate at the step of `context`, by which a shrinking of the updated parameters
    /// goes; none where that has no meaning, as the steps have sizes of their own or the parameters
    /// are averages.
    fn rate(&self, _context: StepContext) -> Option<f64> {
        None
    }

    /// The names of the numbers in a parameter's state, and what they are at first.
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// These numbers after the step of `context`, where they do not come from the step itself.
    fn advance(&self, context: StepContext) -> [f64; MAX_SCALARS] {
        context.scalars
    }

    /// Refuses a parameter of a shape that the rule has no meaning for.
    ///
    /// # Errors
    /// It is refused.
    fn check_shape(&self, _shape: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Of schedule-free optimizers, how far the parameters lie towards the averaged iterate: the
    /// `beta` of [`blend`](crate::optim::schedule_free::blend).
    fn averaging(&self) -> Option<f64> {
        None
    }

    /// Hands the visitor the one rule that these hyperparameters select, as a function of the
    /// context. Every per-step scalar is folded there in `f64` and cast once.
    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output;
}

/// What is done with the rule that an optimizer selects, whatever its number of states.
pub(crate) trait Visitor<T: Float>: Sized {
    /// What comes of it.
    type Output;
    /// Takes an elementwise rule.
    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output;
    /// Takes a rule in two passes.
    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output;
    /// Takes a rule of whole arrays.
    fn tensorwise<R: TensorRule<T> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output;
}
