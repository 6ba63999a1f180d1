//! The interface of the losses: [`Loss`], which every loss implements, and [`Call`], its arguments.

use super::checks::{check_loss_scale, exactly, require_len};
use super::driver::buffers::{Input, Reduction};
use super::driver::pointwise::{self, Piecewise, Pointwise};
use super::driver::vectorwise::{self, Vectors};
use super::labels::{Labels, Target};
use super::signature::{MAX_WEIGHTS, Role, Signature};
use super::tiled::{self, TiledCall};
use crate::error::{Error, Result};
use crate::hyper::Hyper;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

/// A loss. The fields of the struct are its arguments.
pub trait Loss: Hyper + Sync {
    /// The arrays that it takes.
    const SIGNATURE: Signature;

    /// The names of the arrays whose elements must be in a range.
    const CHECKED: &'static [&'static str] = &[];

    /// Checks elements of an array of [`CHECKED`](Self::CHECKED), of which `first` come before.
    ///
    /// # Errors
    /// Names the first element out of range.
    fn check_elements<T: Math>(&self, _name: &str, _elements: &[T], _first: usize) -> Result<()> {
        Ok(())
    }

    /// Computes what [`evaluate`](Self::evaluate) returns. The arrays of the call are those of the
    /// signature; their lengths and elements are not checked yet.
    ///
    /// # Errors
    /// A length is wrong, or an element is out of its range.
    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64>;

    /// Computes the value under the reduction of the call (0 for [`Reduction::None`]) and the
    /// gradients times its `loss_scale`. Everything is checked before anything is written.
    ///
    /// # Errors
    /// The call has other arrays or options than the signature, a length is wrong, `loss_scale` is
    /// not finite and > 0, or an element is out of its range.
    fn evaluate<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        check_loss_scale(call.loss_scale)?;
        call.check(&Self::SIGNATURE)?;
        self.compute(call)
    }

    /// As [`evaluate`](Self::evaluate), for arrays that are not as the kernels read them.
    ///
    /// # Errors
    /// As for `evaluate`, or an element changed during the call to one out of its range.
    fn evaluate_tiled<T: Math>(&self, call: TiledCall<'_, T>) -> Result<f64> {
        let kernel = tiled::Kernel {
            signature: &Self::SIGNATURE,
            checked: Self::CHECKED,
            check: &|name, elements, first| self.check_elements(name, elements, first),
            evaluate: &|call| self.evaluate(call),
            compute: &|call| self.compute(call),
        };
        tiled::evaluate(&kernel, call)
    }
}

/// The arrays of one call of a loss, and what to do with its values.
#[derive(Debug)]
pub struct Call<'a, T> {
    /// The inputs, in the order of [`Signature::arrays`].
    pub inputs: Vec<Input<'a, T>>,
    /// The target, for a loss that has one.
    pub target: Option<Target<'a, T>>,
    /// The weights that are given, in the order of [`Signature::weights`].
    pub weights: [Option<&'a [T]>; MAX_WEIGHTS],
    /// The number of rows and their length. An elementwise loss does not read it.
    pub shape: [usize; 2],
    /// Rows with this target add nothing.
    pub ignore_index: Option<i64>,
    /// How the values become one.
    pub reduction: Reduction<'a, T>,
    /// A factor of the gradients, finite and > 0.
    pub loss_scale: f64,
}

/// The parts of a call of a loss of scores.
pub(crate) struct Scores<'a, T> {
    pub(crate) labels: Labels<'a, T>,
    pub(crate) input: Input<'a, T>,
    pub(crate) reduction: Reduction<'a, T>,
    pub(crate) loss_scale: f64,
}

impl<'a, T> Call<'a, T> {
    /// A call without weights and ignored rows, and with a loss scale of 1. Its shape is not set,
    /// which is right for an elementwise loss.
    pub fn new(
        inputs: Vec<Input<'a, T>>,
        target: Option<Target<'a, T>>,
        reduction: Reduction<'a, T>,
    ) -> Self {
        Self {
            inputs,
            target,
            weights: [None; MAX_WEIGHTS],
            shape: [0, 0],
            ignore_index: None,
            reduction,
            loss_scale: 1.0,
        }
    }
}

impl<'a, T: Float> Call<'a, T> {
    /// Checks that the call has the arrays and options of `signature`.
    ///
    /// # Errors
    /// An array is missing, or there is one that the loss does not take.
    fn check(&self, signature: &Signature) -> Result<()> {
        let is_input = |&&(_, role): &&(&str, Role)| role.is_input();
        let inputs = signature.arrays.iter().filter(is_input).count();
        if self.inputs.len() != inputs {
            let found = self.inputs.len();
            return Err(Error::Value(format!(
                "expected {inputs} inputs, got {found}"
            )));
        }
        let has_target = inputs < signature.arrays.len();
        if self.target.is_some() != has_target {
            let expected = if has_target { "a" } else { "no" };
            return Err(Error::Value(format!("the loss takes {expected} target")));
        }
        let rest = &self.weights[signature.weights.len()..];
        if rest.iter().any(Option::is_some) {
            let most = signature.weights.len();
            return Err(Error::Value(format!(
                "the loss takes at most {most} weights"
            )));
        }
        if self.ignore_index.is_some() && !signature.ignore_index {
            return Err(Error::Value("the loss has no ignore_index".into()));
        }
        if matches!(self.reduction, Reduction::BatchMean(_)) && !signature.batch_mean {
            return Err(Error::Value("the loss has no batch mean".into()));
        }
        Ok(())
    }

    /// The elements of the first input.
    pub(crate) fn input(&self) -> &[T] {
        self.inputs.first().map_or(&[], Input::elements)
    }

    /// The target of a loss that has numbers of the type of the inputs as its target.
    ///
    /// # Errors
    /// There is no such target.
    pub(crate) fn numbers(&self) -> Result<&'a [T]> {
        match self.target {
            Some(Target::Numbers(target)) => Ok(target),
            _ => Err(Error::Type(format!("target must be {}", T::NAME))),
        }
    }

    /// The target of a loss that has one number per row.
    ///
    /// # Errors
    /// There is none, or it has another length.
    pub(crate) fn row_target(&self) -> Result<Target<'a, T>> {
        let target = self.any_target()?;
        require_len("target", target.len(), self.shape[0])?;
        Ok(target)
    }

    fn any_target(&self) -> Result<Target<'a, T>> {
        self.target
            .ok_or_else(|| Error::Value("the loss takes a target".into()))
    }

    /// Evaluates an elementwise loss.
    ///
    /// # Errors
    /// A length is wrong.
    pub(crate) fn pointwise<L: Pointwise<T>>(self, loss: L) -> Result<f64> {
        let target = self.numbers()?;
        let [input] = exactly(self.inputs)?;
        pointwise::compute(loss, input, target, self.reduction, self.loss_scale)
    }

    /// Evaluates an elementwise loss that reads further arrays.
    ///
    /// # Errors
    /// A length is wrong.
    pub(crate) fn piecewise<L: Piecewise<T>>(self, loss: L) -> Result<f64> {
        let target = self.numbers()?;
        let [input] = exactly(self.inputs)?;
        pointwise::compute_pieces(loss, input, target, self.reduction, self.loss_scale)
    }

    /// Evaluates a loss of vectors.
    ///
    /// # Errors
    /// A length is wrong.
    pub(crate) fn vectorwise<const G: usize, const K: usize, L: Vectors<G, K>>(
        self,
        loss: L,
    ) -> Result<f64> {
        let inputs = exactly(self.inputs)?;
        vectorwise::compute(loss, inputs, self.shape, self.reduction, self.loss_scale)
    }

    /// The parts of a call of a loss of scores.
    ///
    /// # Errors
    /// There is not one input and one target.
    pub(crate) fn scores(self) -> Result<Scores<'a, T>> {
        let labels = Labels {
            shape: self.shape,
            target: self.any_target()?,
            weight: self.weights[0],
            ignore_index: self.ignore_index,
        };
        let [input] = exactly(self.inputs)?;
        Ok(Scores {
            labels,
            input,
            reduction: self.reduction,
            loss_scale: self.loss_scale,
        })
    }
}
