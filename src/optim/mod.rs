//! The optimizers: one file each, and the one list of them.

pub mod adadelta;
pub mod adafactor;
pub mod adagrad;
pub mod adam;
pub mod adamax;
pub mod ademamix;
pub mod asgd;
mod cautious;
pub mod lamb;
pub mod lars;
pub mod lion;
mod moments;
pub mod muon;
pub mod nadam;
pub mod prodigy;
pub mod radam;
pub mod rmsprop;
pub mod rprop;
pub mod schedule_free;
pub mod sgd;

use crate::error::Result;
use crate::float::Float;
use crate::hyper::{Hyper, Spec, Value};
use crate::isa::Tier;
use crate::layers::Layers;
use crate::prepare::Prepare;
use crate::segment::{Clock, MAX_SCALARS, Segment};
use crate::sweep::Sweep;
use crate::wholes::Wholes;
use crate::work::{Sums, Work};

/// What an optimizer does to one element: values in, values out, no branch.
pub trait Rule<T, const S: usize>: Copy + Send + Sync {
    /// PyTorch's names of the state arrays.
    const STATE: [&'static str; S];

    /// The new parameter and state, from the parameter, its prepared gradient and its state.
    fn update(&self, p: T, g: T, state: [T; S]) -> (T, [T; S]);
}

/// What an optimizer does to an array in two passes, with two sums over the array in between.
pub trait Layered<T, const S: usize>: Copy + Send + Sync {
    /// PyTorch's names of the state arrays.
    const STATE: [&'static str; S];

    /// Whether the state is new after the first pass. It is after the second otherwise.
    const FIRST_WRITES: bool;

    /// Whether the sums go over all arrays together.
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
pub trait Whole<T>: Copy + Send + Sync {
    /// PyTorch's names of the state arrays of a parameter with this many dimensions.
    fn state(rank: usize) -> &'static [&'static str];

    /// The shape of one of them.
    fn state_shape(name: &str, shape: &[usize]) -> Vec<usize>;

    /// Updates one parameter. It may spread its own work over threads.
    fn update(&self, shape: &[usize], p: &mut [T], g: &[T], state: Vec<&mut [T]>, tier: Tier);
}

/// Hyperparameters that know their rules.
pub trait Optimizer: Hyper {
    /// The weight decay that is added to the gradient, where the rule does not decay by itself.
    fn coupled_decay(&self) -> f64 {
        0.0
    }

    /// The names of the numbers in a parameter's state, and what they are at first.
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// These numbers after the step of `clock`, where they do not come from the step itself.
    fn advance(&self, clock: Clock) -> [f64; MAX_SCALARS] {
        clock.scalars
    }

    /// Refuses a parameter of a shape that the rule has no meaning for.
    ///
    /// # Errors
    /// It is refused.
    fn check_shape(&self, _shape: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Of schedule-free optimizers, how far the parameters lie towards the averaged iterate: the
    /// `beta` of [`schedule_free::blend`].
    fn averaging(&self) -> Option<f64> {
        None
    }

    /// Hands the visitor the one rule that these hyperparameters select, as a function of the
    /// clock. Every per-step scalar is folded there in `f64` and cast once.
    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output;
}

/// What is done with the rule that an optimizer selects, whatever its number of states.
pub trait Visitor<T: Float>: Sized {
    /// What comes of it.
    type Output;
    /// Takes an elementwise rule.
    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self::Output;
    /// Takes a rule in two passes.
    fn layered<const S: usize, R: Layered<T, S> + 'static>(
        self,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self::Output;
    /// Takes a rule of whole arrays.
    fn whole<R: Whole<T> + 'static>(self, rule_at: impl Fn(Clock) -> R) -> Self::Output;
}

/// The state arrays of a parameter of this many dimensions.
struct StateNames(usize);

impl<T: Float> Visitor<T> for StateNames {
    type Output = &'static [&'static str];

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(Clock) -> R,
    ) -> Self::Output {
        const { &R::STATE }
    }

    fn layered<const S: usize, R: Layered<T, S> + 'static>(
        self,
        _: impl Fn(Clock) -> R,
    ) -> Self::Output {
        const { &R::STATE }
    }

    fn whole<R: Whole<T> + 'static>(self, _: impl Fn(Clock) -> R) -> Self::Output {
        R::state(self.0)
    }
}

/// The shape of one state array.
struct StateShape<'a>(&'a str, &'a [usize]);

impl<T: Float> Visitor<T> for StateShape<'_> {
    type Output = Vec<usize>;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(Clock) -> R,
    ) -> Self::Output {
        self.1.to_vec()
    }

    fn layered<const S: usize, R: Layered<T, S> + 'static>(
        self,
        _: impl Fn(Clock) -> R,
    ) -> Self::Output {
        self.1.to_vec()
    }

    fn whole<R: Whole<T> + 'static>(self, _: impl Fn(Clock) -> R) -> Self::Output {
        R::state_shape(self.0, self.1)
    }
}

/// The work of one step.
struct Plan<'a, T> {
    segments: Vec<Segment<'a, T>>,
    prepare: Prepare,
}

impl<'a, T: Float> Visitor<T> for Plan<'a, T> {
    type Output = Box<dyn Work + 'a>;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self::Output {
        Box::new(Sweep::new(self.segments, self.prepare, rule_at))
    }

    fn layered<const S: usize, R: Layered<T, S> + 'static>(
        self,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self::Output {
        Box::new(Layers::new(self.segments, self.prepare, rule_at))
    }

    fn whole<R: Whole<T> + 'static>(self, rule_at: impl Fn(Clock) -> R) -> Self::Output {
        Box::new(Wholes::new(self.segments, self.prepare, rule_at))
    }
}

/// Declares the list of optimizers: an enum of their names and one of their hyperparameters.
macro_rules! optimizers {
    ($($name:ident: $hyper:ty,)*) => {
        /// Every optimizer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = stringify!($name)] $name,)* }

        /// An optimizer with its hyperparameters.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Method { $(#[doc = stringify!($name)] $name($hyper),)* }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name of its class.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Its hyperparameters.
            pub const fn specs(self) -> &'static [Spec] {
                match self { $(Self::$name => <$hyper as Hyper>::SPECS,)* }
            }

            /// It with one value per hyperparameter, in the order of [`Kind::specs`].
            ///
            /// # Errors
            /// A value has the wrong type or is out of range.
            pub fn method(self, values: &[Value]) -> Result<Method> {
                match self {
                    $(Self::$name => <$hyper as Hyper>::from_values(values).map(Method::$name),)*
                }
            }
        }

        impl Method {
            /// The names of the state arrays that a step with these hyperparameters uses for a
            /// parameter of `rank` dimensions.
            pub fn state(&self, rank: usize) -> &'static [&'static str] {
                match self { $(Self::$name(hyper) => hyper.visit::<f32, _>(StateNames(rank)),)* }
            }

            /// The shape of one of them for a parameter of `shape`.
            pub fn state_shape(&self, name: &str, shape: &[usize]) -> Vec<usize> {
                match self {
                    $(Self::$name(hyper) => hyper.visit::<f32, _>(StateShape(name, shape)),)*
                }
            }

            /// The names of the numbers in a parameter's state, and what they are at first.
            pub fn scalars(&self) -> Vec<(&'static str, f64)> {
                match self { $(Self::$name(hyper) => hyper.scalars(),)* }
            }

            /// These numbers after the step of `clock`, unless the work of the step has them.
            pub fn advance(&self, clock: Clock) -> [f64; MAX_SCALARS] {
                match self { $(Self::$name(hyper) => hyper.advance(clock),)* }
            }

            /// Of schedule-free optimizers, how far the parameters lie towards the averaged iterate.
            pub fn averaging(&self) -> Option<f64> {
                match self { $(Self::$name(hyper) => hyper.averaging(),)* }
            }

            /// Refuses a parameter of a shape that the rule has no meaning for.
            ///
            /// # Errors
            /// It is refused.
            pub fn check_shape(&self, shape: &[usize]) -> Result<()> {
                match self { $(Self::$name(hyper) => hyper.check_shape(shape),)* }
            }

            /// The work of one step over `segments`, each with one array per name in
            /// [`Method::state`].
            pub fn plan<'a, T: Float>(
                &self,
                segments: Vec<Segment<'a, T>>,
                prepare: Prepare,
            ) -> Box<dyn Work + 'a> {
                match self {
                    $(Self::$name(hyper) => {
                        let weight_decay = hyper.coupled_decay();
                        let prepare = Prepare { weight_decay, ..prepare };
                        hyper.visit(Plan { segments, prepare })
                    })*
                }
            }
        }
    };
}

optimizers! {
    SGD: sgd::Sgd,
    Adagrad: adagrad::Adagrad,
    RMSprop: rmsprop::RMSprop,
    Adadelta: adadelta::Adadelta,
    Adam: adam::Adam,
    Adamax: adamax::Adamax,
    NAdam: nadam::NAdam,
    RAdam: radam::RAdam,
    Rprop: rprop::Rprop,
    ASGD: asgd::ASGD,
    Lion: lion::Lion,
    AdEMAMix: ademamix::AdEMAMix,
    ScheduleFreeSGD: schedule_free::ScheduleFreeSGD,
    ScheduleFreeAdamW: schedule_free::ScheduleFreeAdamW,
    LARS: lars::Lars,
    LAMB: lamb::Lamb,
    Prodigy: prodigy::Prodigy,
    Adafactor: adafactor::Adafactor,
    Muon: muon::Muon,
}

impl Kind {
    /// The optimizer of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}
