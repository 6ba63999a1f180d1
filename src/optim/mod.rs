//! The optimizers, one file each, and the list of them.

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

use std::time::Duration;

pub use crate::hyper;
pub use crate::sweep::state::{Role, StateSpec};

use crate::error::{Error, Result};
use crate::numeric::float::Float;
use crate::optim::hyper::{Hyper, Spec, Value};
use crate::step::{Progress, Regularization};
use crate::sweep::arithmetic::Arithmetic;
use crate::sweep::elementwise::Elementwise;
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::{Optimizer, Rule, TensorRule, TwoPassRule, Visitor};
use crate::sweep::segment::{MAX_SCALARS, Segment, StepContext};
use crate::sweep::task::Work;
use crate::sweep::tensorwise::Tensorwise;
use crate::sweep::two_pass::TwoPass;

/// Returns the state arrays of a parameter with this number of dimensions.
struct StateSpecs(usize);

impl<T: Float> Visitor<T> for StateSpecs {
    type Output = &'static [StateSpec];

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        const { &R::STATE }
    }

    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        const { &R::STATE }
    }

    fn tensorwise<R: TensorRule<T> + 'static>(self, _: impl Fn(StepContext) -> R) -> Self::Output {
        R::state(self.0)
    }
}

/// Returns whether a rule uses sums over all parameters of a step.
struct SumsGlobally;

impl<T: Float> Visitor<T> for SumsGlobally {
    type Output = bool;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> bool {
        false
    }

    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> bool {
        R::GLOBAL
    }

    fn tensorwise<R: TensorRule<T> + 'static>(self, _: impl Fn(StepContext) -> R) -> bool {
        false
    }
}

/// Determines whether a rule uses the shape of the array.
struct WorksByShape;

impl<T: Float> Visitor<T> for WorksByShape {
    type Output = bool;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> bool {
        false
    }

    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> bool {
        false
    }

    fn tensorwise<R: TensorRule<T> + 'static>(self, _: impl Fn(StepContext) -> R) -> bool {
        true
    }
}

/// Returns the shape of one state array.
struct StateShape<'a>(&'a str, &'a [usize]);

impl<T: Float> Visitor<T> for StateShape<'_> {
    type Output = Vec<usize>;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        self.1.to_vec()
    }

    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        _: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        self.1.to_vec()
    }

    fn tensorwise<R: TensorRule<T> + 'static>(self, _: impl Fn(StepContext) -> R) -> Self::Output {
        R::state_shape(self.0, self.1)
    }
}

/// Creates the work of one step.
struct Plan<'s, 'a, T> {
    segments: &'s mut Vec<Segment<'a, T>>,
    prologue: Prologue,
}

impl<'s, T: Float> Visitor<T> for Plan<'s, '_, T> {
    type Output = Work<'s>;

    fn elementwise<const S: usize, R: Rule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        Work::new(Elementwise::new(self.segments, self.prologue, rule_at))
    }

    fn two_pass<const S: usize, R: TwoPassRule<T, S> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        Work::new(TwoPass::new(self.segments, self.prologue, rule_at))
    }

    fn tensorwise<R: TensorRule<T> + 'static>(
        self,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self::Output {
        Work::new(Tensorwise::new(self.segments, self.prologue, rule_at))
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
            /// All optimizers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the name of the Python class.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Returns the specs of the hyperparameters.
            pub const fn specs(self) -> &'static [Spec] {
                match self { $(Self::$name => <$hyper as Hyper>::SPECS,)* }
            }

            /// Builds the optimizer from one value per hyperparameter, in the order of
            /// [`Kind::specs`].
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
            /// Returns the state arrays that a step uses for a parameter with `rank` dimensions.
            pub fn state(&self, rank: usize) -> &'static [StateSpec] {
                match self { $(Self::$name(hyper) => hyper.visit::<f32, _>(StateSpecs(rank)),)* }
            }

            /// Returns the state arrays that only some values of the hyperparameters require,
            /// whatever the current values are.
            pub fn optional_state(&self) -> &'static [StateSpec] {
                match self { $(Self::$name(_) => <$hyper as Optimizer>::OPTIONAL,)* }
            }

            /// Returns the shape of the state array `name` of a parameter of `shape`.
            pub fn state_shape(&self, name: &str, shape: &[usize]) -> Vec<usize> {
                match self {
                    $(Self::$name(hyper) => hyper.visit::<f32, _>(StateShape(name, shape)),)*
                }
            }

            /// Returns the names and the initial values of the scalars in a parameter's state.
            pub fn scalars(&self) -> Vec<(&'static str, f64)> {
                match self { $(Self::$name(hyper) => hyper.scalars(),)* }
            }

            /// Returns the scalars after the step of `context`, unless the step computes them.
            pub fn advance(&self, context: &StepContext) -> [f64; MAX_SCALARS] {
                match self { $(Self::$name(hyper) => hyper.advance(context),)* }
            }

            /// Returns the interpolation coefficient of schedule-free optimizers: the parameters
            /// are `beta` times the averaged iterate plus `1 - beta` times the first state array.
            pub fn averaging(&self) -> Option<f64> {
                match self { $(Self::$name(hyper) => hyper.averaging(),)* }
            }

            /// Checks that the rule supports parameters of this shape.
            ///
            /// # Errors
            /// It does not.
            pub fn check_shape(&self, shape: &[usize]) -> Result<()> {
                match self { $(Self::$name(hyper) => hyper.check_shape(shape),)* }
            }

            /// Checks that the method has a learning rate if the regularization is proximal.
            ///
            /// # Errors
            /// The method has none.
            pub fn check_regularization(&self, regularization: &Regularization) -> Result<()> {
                if regularization.shrinkage == 0.0 {
                    return Ok(());
                }
                let first = StepContext { step: 1, ..StepContext::default() };
                let (name, rate) = match self {
                    $(Self::$name(hyper) => (stringify!($name), hyper.rate(first)),)*
                };
                if rate.is_some() {
                    return Ok(());
                }
                Err(Error::Value(format!(
                    "regularizer must not be proximal with {name}, which averages its parameters or \
                     adapts the size of its steps: it has no learning rate to shrink them by"
                )))
            }

            /// Returns whether a step uses the shape of a parameter, and therefore needs its elements in
            /// C order. All other steps give the same in any order, up to the rounding of sums.
            pub fn works_by_shape(&self) -> bool {
                match self { $(Self::$name(hyper) => hyper.visit::<f32, _>(WorksByShape),)* }
            }

            /// Returns whether a step uses sums over all parameters of all groups.
            pub fn sums_globally(&self) -> bool {
                match self { $(Self::$name(hyper) => hyper.visit::<f32, _>(SumsGlobally),)* }
            }

            /// Applies the rule alone to `elements` elements, in equal parts on so many threads,
            /// and returns the time. Each thread repeats the loop of the rule over one block that
            /// stays in its L1 cache: the upper bound that arithmetic sets to the speed of a step.
            ///
            /// # Errors
            /// The rule works by shape, or the system does not give so many threads.
            ///
            /// # Panics
            /// `threads` is 0.
            pub fn arithmetic<T: Float>(&self, elements: usize, threads: usize) -> Result<Duration> {
                // A step at which moments are not flushed.
                let context = StepContext { step: 10, ..Progress::new(self).context(false) };
                let arithmetic = Arithmetic { context, elements, threads };
                match self {
                    $(Self::$name(hyper) => hyper.visit::<T, _>(arithmetic),)*
                }
            }

            /// Creates the work of one step over `segments`, each with the arrays of
            /// [`Method::state`]; `shrinkage` is that of [`Regularization`].
            ///
            /// # Panics
            /// A segment has other state arrays, or [`Method::check_shape`] rejects its shape.
            pub(crate) fn plan<'s, T: Float>(
                &self,
                segments: &'s mut Vec<Segment<'_, T>>,
                prologue: Prologue,
                shrinkage: f64,
            ) -> Work<'s> {
                match self {
                    $(Self::$name(hyper) => {
                        for segment in &mut *segments {
                            if let Err(error) = hyper.check_shape(segment.shape()) {
                                panic!("{error}");
                            }
                            // A segment may have one of an earlier step.
                            segment.threshold = T::ZERO;
                            if shrinkage > 0.0
                                && let Some(rate) = hyper.rate(segment.context)
                            {
                                segment.threshold = T::from_f64(rate * shrinkage);
                            }
                        }
                        let weight_decay = hyper.coupled_decay();
                        let prologue = Prologue { weight_decay, ..prologue };
                        hyper.visit(Plan { segments, prologue })
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
    /// Returns the optimizer with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}
