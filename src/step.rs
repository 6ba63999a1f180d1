//! One optimizer step: measure the gradients, then apply the update.
//!
//! An [`AllReduce`] combines the sums of several processes that share one step, after measuring and
//! between the passes of rules that sum over all parameters.

use crate::error::{Error, Result};
use crate::numeric::scale::ScaleFactor;
use crate::ops::clip;
use crate::ops::penalty::Penalty;
use crate::optim::Method;
use crate::sweep::norm;
use crate::sweep::prologue::Prologue;
use crate::sweep::task::{self, Work};

pub use crate::sweep::all_reduce::{AllReduce, Local};
pub use crate::sweep::epilogue::Epilogue;
pub use crate::sweep::frozen::FrozenParameter;
pub use crate::sweep::segment::{MAX_SCALARS, PART, Segment, StepContext};

/// The handling of gradients that are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nonfinite {
    /// Applies the update; infinities and NaN propagate into the parameters.
    #[default]
    Propagate,
    /// Changes nothing; [`StepOutcome::applied`] is false.
    Skip,
    /// Changes nothing and returns [`Error::NotFinite`].
    Raise,
}

impl Nonfinite {
    /// Returns the policy with this name.
    ///
    /// # Errors
    /// No policy has this name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "propagate" => Ok(Self::Propagate),
            "skip" => Ok(Self::Skip),
            "raise" => Ok(Self::Raise),
            _ => Err(Error::Value(format!(
                "nonfinite must be 'propagate', 'skip' or 'raise', got {name:?}"
            ))),
        }
    }
}

/// How a step keeps parameters small.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularization {
    /// The penalty whose gradient is added to that of the loss.
    pub penalty: Penalty,
    /// The coefficient of a penalty on absolute values that is no part of the gradient: once
    /// updated, elements move towards 0 by the learning rate times it, and no further than to 0.
    pub shrinkage: f64,
}

impl Regularization {
    /// Parameters are left as large as the loss makes them.
    pub const NONE: Self = Self {
        penalty: Penalty::NONE,
        shrinkage: 0.0,
    };

    /// Checks the range of every number.
    ///
    /// # Errors
    /// A number is out of range.
    pub fn check(&self) -> Result<()> {
        let Penalty { l1, l2 } = self.penalty;
        for x in [l1, l2, self.shrinkage] {
            if !(x >= 0.0 && x.is_finite()) {
                return Err(Error::Value(format!(
                    "the coefficients of a regularizer must be finite and >= 0, got {x}"
                )));
            }
        }
        Ok(())
    }
}

/// The options of one step. A gradient is unscaled, regularized, clipped by value and clipped by
/// norm, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The factor by which the loss was multiplied before its gradients were computed.
    pub loss_scale: f64,
    /// The regularization of groups that have none of their own.
    pub regularization: Regularization,
    /// The bound on the absolute value of every element.
    pub clip_value: Option<f64>,
    /// The bound on the norm of all gradients together.
    pub max_norm: Option<f64>,
    /// The handling of gradients that are not finite.
    pub nonfinite: Nonfinite,
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Options {
    /// Uses the gradients unchanged.
    pub const DEFAULT: Self = Self {
        loss_scale: 1.0,
        regularization: Regularization::NONE,
        clip_value: None,
        max_norm: None,
        nonfinite: Nonfinite::Propagate,
    };

    /// Checks the range of every number.
    ///
    /// # Errors
    /// A number is out of range.
    pub fn check(&self) -> Result<()> {
        if *self == Self::DEFAULT {
            return Ok(());
        }
        let refuse = |name: &str, range: &str, x: f64| {
            Err(Error::Value(format!("{name} must be {range}, got {x}")))
        };
        if !(self.loss_scale > 0.0 && self.loss_scale.is_finite()) {
            return refuse("loss_scale", "finite and > 0", self.loss_scale);
        }
        self.regularization.check()?;
        match (self.max_norm, self.clip_value) {
            (Some(x), _) if x.is_nan() || x <= 0.0 => refuse("max_norm", "> 0", x),
            (_, Some(x)) if x.is_nan() || x < 0.0 => refuse("clip_value", ">= 0", x),
            _ => Ok(()),
        }
    }

    /// Returns the operations applied to gradients before their rule, except clipping by norm.
    fn prologue(&self) -> Prologue {
        Prologue {
            scale: ScaleFactor::quotient(1.0, self.loss_scale),
            regularizer: self.regularization.penalty,
            clip_value: self.clip_value.unwrap_or(f64::INFINITY),
            ..Prologue::default()
        }
    }
}

/// The parameters of one group in one step, by the type used for computation.
#[derive(Debug)]
pub struct GroupSegments<'a> {
    /// The optimizer with the hyperparameters of the group.
    pub method: &'a Method,
    /// Whether the objective is maximized.
    pub maximize: bool,
    /// The regularization of the group; `None` stands for [`Options::regularization`].
    pub regularization: Option<Regularization>,
    /// The parameters that have a gradient, computed in single precision. Their indices
    /// ([`Segment::numbered`]) are unique across all groups of a step.
    pub single: Vec<Segment<'a, f32>>,
    /// The parameters that have a gradient, computed in double precision.
    pub double: Vec<Segment<'a, f64>>,
    /// The parameters without a gradient that have an average or a copy to update, computed in
    /// single precision.
    pub frozen_single: Vec<FrozenParameter<'a, f32>>,
    /// The same, computed in double precision.
    pub frozen_double: Vec<FrozenParameter<'a, f64>>,
}

impl<'a> GroupSegments<'a> {
    /// Creates a group without parameters.
    pub fn new(method: &'a Method) -> Self {
        Self {
            method,
            maximize: false,
            regularization: None,
            single: Vec::new(),
            double: Vec::new(),
            frozen_single: Vec::new(),
            frozen_double: Vec::new(),
        }
    }

    fn prologue(&self, options: Prologue) -> Prologue {
        let mut prologue = options;
        if let Some(Regularization { penalty, .. }) = self.regularization {
            prologue.regularizer = penalty;
        }
        if self.maximize {
            prologue.scale = prologue.scale.negated();
        }
        prologue
    }
}

/// The part of a parameter's state that is not stored in arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The number of steps applied to the parameter.
    pub steps: u64,
    /// The scalars of the state, in the order of [`Method::scalars`].
    pub scalars: [f64; MAX_SCALARS],
}

impl Progress {
    /// Returns the progress of a parameter before its first step.
    pub fn new(method: &Method) -> Self {
        let initial = method.scalars();
        Self {
            steps: 0,
            scalars: std::array::from_fn(|i| initial.get(i).map_or(0.0, |(_, x)| *x)),
        }
    }

    /// Returns the context of the next step. `fresh` sets [`StepContext::fresh`].
    #[inline]
    pub fn context(&self, fresh: bool) -> StepContext {
        StepContext {
            step: self.steps.saturating_add(1),
            fresh,
            scalars: self.scalars,
        }
    }
}

/// The result of one step.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct StepOutcome {
    /// Whether the step was applied. It is false only under [`Nonfinite::Skip`].
    pub applied: bool,
    /// The norm of all gradients, if [`Options::max_norm`] is set.
    pub norm: Option<f64>,
    /// The scalars that the step computed over all parameters.
    scalars: Option<[f64; MAX_SCALARS]>,
}

impl StepOutcome {
    /// Updates the progress of one parameter of the step. `context` is the context of its segment,
    /// or `None` for a parameter without a gradient.
    #[inline]
    pub fn write_back(
        &self,
        method: &Method,
        context: Option<StepContext>,
        progress: &mut Progress,
    ) {
        if !self.applied {
            return;
        }
        if let Some(context) = context {
            progress.steps = context.step;
            progress.scalars = method.advance(&context);
        }
        // Scalars computed over all parameters are the same in each of them.
        if let Some(scalars) = self.scalars {
            progress.scalars = scalars;
        }
    }
}

/// Runs one step over all groups. `ranks` is [`Local`] unless other processes take part. Segments
/// that may be merged ([`Segment::follows`]) are merged; all others can be used for further steps
/// ([`Segment::renew`]).
///
/// # Errors
/// An option is out of range, a method cannot take a regularization, or a gradient is not finite
/// under [`Nonfinite::Raise`]. Nothing is written in any of these cases.
///
/// # Panics
/// The state arrays of a segment differ from those of [`Method::state`], [`Method::check_shape`]
/// rejects its shape, a frozen parameter and its targets differ in length, or a target is
/// read-only.
pub fn run(
    groups: &mut [GroupSegments<'_>],
    options: &Options,
    ranks: &dyn AllReduce,
) -> Result<StepOutcome> {
    options.check()?;
    for group in &*groups {
        let regularization = group.regularization.unwrap_or(options.regularization);
        group.method.check_regularization(&regularization)?;
    }
    let prologue = options.prologue();
    let Measured {
        norm,
        finite,
        first,
    } = measure(groups, options, prologue, ranks);
    if finite {
        let coefficient = match (norm, options.max_norm) {
            (Some(norm), Some(max_norm)) => clip::coefficient(norm, max_norm),
            _ => ScaleFactor::ONE,
        };
        let prologue = Prologue {
            coefficient,
            ..prologue
        };
        return Ok(StepOutcome {
            applied: true,
            norm,
            scalars: apply(groups, options.regularization, prologue, ranks),
        });
    }
    if options.nonfinite == Nonfinite::Raise {
        return Err(Error::NotFinite(first));
    }
    Ok(StepOutcome {
        applied: false,
        norm,
        scalars: None,
    })
}

/// The measurements of all gradients.
struct Measured {
    norm: Option<f64>,
    /// Whether the gradients of all processes are finite. True if the policy does not check.
    finite: bool,
    /// The first parameter whose gradient is not finite in any process.
    first: Option<usize>,
}

/// Measures the gradients as required by the options.
fn measure(
    groups: &[GroupSegments<'_>],
    options: &Options,
    prologue: Prologue,
    ranks: &dyn AllReduce,
) -> Measured {
    let check = options.nonfinite != Nonfinite::Propagate;
    let mut measured = Measured {
        norm: None,
        finite: true,
        first: None,
    };
    if !check && options.max_norm.is_none() {
        return measured;
    }
    let read: Vec<_> = groups
        .iter()
        .map(|group| norm::Group {
            single: &group.single,
            double: &group.double,
            prologue: group.prologue(prologue),
        })
        .collect();
    let norm = norm::norm(&read, check, ranks);
    // A large norm does not prove that a gradient is infinite: the norm of finite gradients may
    // overflow. Conversely, the norm is computed in double precision and may be finite where
    // unscaling overflows single precision.
    if check && (norm.is_nan() || norm > f64::from(f32::MAX)) {
        let own = norm::first_infinite(&read);
        let first = -ranks.max(own.map_or(f64::NEG_INFINITY, |index| -(index as f64)));
        measured.finite = first == f64::INFINITY;
        measured.first = (!measured.finite).then_some(first as usize);
    }
    measured.norm = options.max_norm.map(|_| norm);
    measured
}

/// Updates all parameters. Returns the scalars that the step computed.
fn apply(
    groups: &mut [GroupSegments<'_>],
    default: Regularization,
    prologue: Prologue,
    ranks: &dyn AllReduce,
) -> Option<[f64; MAX_SCALARS]> {
    let mut works: Vec<Work<'_>> = Vec::with_capacity(groups.len());
    for group in groups {
        let prologue = group.prologue(prologue);
        let Regularization { shrinkage, .. } = group.regularization.unwrap_or(default);
        if !group.single.is_empty() {
            works.push(group.method.plan(&mut group.single, prologue, shrinkage));
        }
        if !group.double.is_empty() {
            works.push(group.method.plan(&mut group.double, prologue, shrinkage));
        }
        if !group.frozen_single.is_empty() {
            works.push(Work::frozen(&group.frozen_single));
        }
        if !group.frozen_double.is_empty() {
            works.push(Work::frozen(&group.frozen_double));
        }
    }
    task::run(works, ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_rejected() {
        let (none, nan) = (Options::default(), Some(f64::NAN));
        assert_eq!(none.check(), Ok(()));
        let edge = Options {
            max_norm: Some(f64::INFINITY),
            clip_value: Some(0.0),
            ..none
        };
        assert_eq!(edge.check(), Ok(()));
        let loss_scale = |loss_scale| Options { loss_scale, ..none };
        let max_norm = |max_norm| Options { max_norm, ..none };
        let clip_value = |clip_value| Options { clip_value, ..none };
        let shrinkage = |shrinkage| Options {
            regularization: Regularization {
                shrinkage,
                ..Regularization::NONE
            },
            ..none
        };
        for (name, options) in [
            ("loss_scale", loss_scale(0.0)),
            ("loss_scale", loss_scale(f64::INFINITY)),
            ("loss_scale", loss_scale(f64::NAN)),
            ("max_norm", max_norm(Some(0.0))),
            ("max_norm", max_norm(nan)),
            ("clip_value", clip_value(Some(-1.0))),
            ("clip_value", clip_value(nan)),
            ("the coefficients", shrinkage(-1.0)),
            ("the coefficients", shrinkage(f64::NAN)),
        ] {
            let error = run(&mut [], &options, &Local).expect_err("out of range");
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn policies_are_found_by_exact_name() {
        assert_eq!(Nonfinite::from_name("skip"), Ok(Nonfinite::Skip));
        assert!(Nonfinite::from_name("Skip").is_err());
    }
}
