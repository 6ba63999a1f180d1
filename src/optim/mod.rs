//! The optimizers: one file each, and the one list of them.

pub mod adam;
pub mod sgd;

use crate::error::Result;
use crate::float::Float;
use crate::hyper::{Hyper, Spec, Value};
use crate::sweep::{Prepare, Segment, Sweep, Work};

/// What a parameter's rule depends on besides the hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Which step of this parameter it is: 1 at the first.
    pub step: u64,
    /// Whether the state arrays hold nothing yet (zeros). Not the same as a first step: momentum
    /// may be switched on later, and loaded state may come without a count.
    pub fresh: bool,
}

/// What an optimizer does to one element: values in, values out, no branch.
pub trait Rule<T, const S: usize>: Copy + Send + Sync {
    /// PyTorch's names of the state arrays.
    const STATE: [&'static str; S];

    /// The new parameter and state, from the parameter, its prepared gradient and its state.
    fn update(&self, p: T, g: T, state: [T; S]) -> (T, [T; S]);
}

/// Hyperparameters that know their rules.
pub trait Optimizer: Hyper {
    /// The weight decay that is added to the gradient, where the rule does not decay by itself.
    fn coupled_decay(&self) -> f64;

    /// Hands the visitor the one rule that these hyperparameters select, as a function of the
    /// clock. Every per-step scalar is folded there in `f64` and cast once.
    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output;
}

/// What is done with the rule that an optimizer selects, whatever its number of states.
pub trait Visitor<T: Float> {
    /// What comes of it.
    type Output;
    /// Takes an elementwise rule.
    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self::Output;
}

struct StateNames;

impl<T: Float> Visitor<T> for StateNames {
    type Output = &'static [&'static str];

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(Clock) -> R,
    ) -> Self::Output {
        const { &R::STATE }
    }
}

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
            /// The names of the state arrays that a step with these hyperparameters uses.
            pub fn state(&self) -> &'static [&'static str] {
                match self { $(Self::$name(hyper) => hyper.visit::<f32, _>(StateNames),)* }
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
    Adam: adam::Adam,
}

impl Kind {
    /// The optimizer of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}
