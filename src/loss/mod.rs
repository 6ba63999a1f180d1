//! The losses: one file each, and the drivers' view of what they read and write.
//!
//! A loss of one element at a time implements [`Pointwise`](crate::loss::driver::pointwise::Pointwise) and has a
//! line in the list below, by which the bindings find it. Losses of rows of scores stand on
//! [`rowwise`](crate::loss::driver::rowwise), losses of vectors on [`vectorwise`].

pub mod absolute;
pub mod binary;
pub mod contrastive;
pub mod cosine_embedding;
pub mod cross_entropy;
mod distance;
pub mod driver;
pub mod focal;
pub mod gaussian;
mod labels;
pub mod likelihood;
pub mod log_cosh;
mod logistic;
pub mod margin;
pub mod mse;
pub mod multi_margin;
pub mod nll;
pub mod sigmoid_focal;
pub mod triplet_margin;
pub mod triplets;
mod weights;

pub(crate) use driver::buffers::{Buffers, piece};
pub use driver::buffers::{Input, Reduction};
pub(crate) use labels::weigh;
pub use labels::{Labels, Target};
pub use weights::Weights;

use crate::error::{Error, Result};
use crate::numeric::math::Math;
use driver::{pointwise, vectorwise};

/// The list: the name of each elementwise loss, and how its parameters make it. Where a number is
/// given for a parameter, the loss is one of its own.
macro_rules! elementwise {
    ($($name:literal: $type:ty, [$($parameter:pat),*] => $make:expr;)*) => {
        /// One elementwise loss by name, with its gradient: the value under `reduction`.
        ///
        /// # Errors
        /// The name or the number of parameters is unknown, the loss does not take the weights, a
        /// length is wrong, or an element is out of its range.
        pub fn elementwise<T: Math>(
            name: &str,
            parameters: &[f64],
            weights: Weights<'_, T>,
            input: Input<'_, T>,
            target: &[T],
            reduction: Reduction<'_, T>,
            loss_scale: f64,
        ) -> Result<f64> {
            check_loss_scale(loss_scale)?;
            if name == "bce" {
                binary::check(input.elements(), target)?;
            }
            if !weights.is_empty() {
                return weights.compute(name, input, target, reduction, loss_scale);
            }
            match (name, parameters) {
                $(($name, &[$($parameter),*]) => {
                    let loss: $type = $make;
                    pointwise::compute(loss, input, target, reduction, loss_scale)
                })*
                _ => Err(Error::Value(format!(
                    "{name:?} with {} parameters is no elementwise loss", parameters.len()
                ))),
            }
        }
    };
}

elementwise! {
    "mse": mse::Mse, [] => mse::Mse;
    "l1": absolute::L1, [] => absolute::L1;
    "huber": absolute::Huber<T>, [delta] => absolute::Huber { delta: T::from_f64(delta) };
    "smooth_l1": absolute::SmoothL1<T>, [beta] => absolute::SmoothL1 { beta: T::from_f64(beta) };
    "hinge": margin::Hinge<T>, [margin, squared] => margin::Hinge {
        margin: T::from_f64(margin), squared: squared != 0.0
    };
    "soft_margin": margin::SoftMargin, [] => margin::SoftMargin;
    "hinge_embedding": margin::HingeEmbedding<T>, [margin] => margin::HingeEmbedding {
        margin: T::from_f64(margin)
    };
    "kl_div": likelihood::KlDivergence, [log_target] => likelihood::KlDivergence {
        log_target: log_target != 0.0
    };
    "poisson_nll": likelihood::Poisson<T, false>, [log_input, 0.0, eps] => likelihood::Poisson {
        log_input: log_input != 0.0, eps: T::from_f64(eps)
    };
    "poisson_nll": likelihood::Poisson<T, true>, [log_input, _, eps] => likelihood::Poisson {
        log_input: log_input != 0.0, eps: T::from_f64(eps)
    };
    "log_cosh": log_cosh::LogCosh, [] => log_cosh::LogCosh;
    "bce": binary::Bce, [] => binary::Bce;
    "bce_with_logits": binary::BceWithLogits, [] => binary::BceWithLogits;
    "sigmoid_focal": sigmoid_focal::SquaredFocal<T>, [2.0, positive, negative] =>
        sigmoid_focal::SquaredFocal { alpha: [positive, negative].map(T::from_f64) };
    "sigmoid_focal": sigmoid_focal::SigmoidFocal, [gamma, positive, negative] =>
        sigmoid_focal::SigmoidFocal { gamma, alpha: [positive, negative] };
}

/// One loss of rows of scores by name, with its gradient: the value under `reduction`.
///
/// # Errors
/// The name or the number of parameters is unknown, a length is wrong, or a target is no class.
pub fn of_rows<T: Math>(
    name: &str,
    parameters: &[f64],
    labels: Labels<'_, T>,
    input: Input<'_, T>,
    reduction: Reduction<'_, T>,
    loss_scale: f64,
) -> Result<f64> {
    check_loss_scale(loss_scale)?;
    match (name, parameters) {
        ("cross_entropy", &[label_smoothing]) => cross_entropy::CrossEntropy { label_smoothing }
            .compute(labels, input, reduction, loss_scale),
        ("focal", &[gamma, alpha]) => {
            focal::Focal { gamma, alpha }.compute(labels, input, reduction, loss_scale)
        }
        ("multi_margin", &[p, margin, average]) => multi_margin::MultiMargin {
            squared: p == 2.0,
            margin,
            average: average != 0.0,
        }
        .compute(labels, input, reduction, loss_scale),
        ("nll", &[]) => nll::Nll.compute(labels, input, reduction, loss_scale),
        _ => unknown(name, parameters),
    }
}

/// One loss of vectors by name, with its gradients: the value under `reduction`. The target has a
/// number per row, for losses that have targets.
///
/// # Errors
/// The name, the number of parameters or of inputs is unknown, a length is wrong, or there is no
/// target.
pub fn of_vectors<T: Math>(
    name: &str,
    parameters: &[f64],
    inputs: Vec<Input<'_, T>>,
    shape: [usize; 2],
    target: Option<Target<'_, T>>,
    reduction: Reduction<'_, T>,
    loss_scale: f64,
) -> Result<f64> {
    check_loss_scale(loss_scale)?;
    if let Some(target) = target {
        require_len("target", target.len(), shape[0])?;
    }
    match (name, parameters, target) {
        ("triplet_margin", &[margin, p, eps, swap, squared], None) => {
            let loss = triplet_margin::TripletMargin {
                margin,
                p,
                eps,
                swap: swap != 0.0,
                squared: squared != 0.0,
            };
            loss.compute(several(inputs)?, shape, reduction, loss_scale)
        }
        ("cosine_embedding", &[margin], Some(target)) => {
            let loss = cosine_embedding::CosineEmbedding { margin, target };
            vectorwise::compute(loss, several(inputs)?, shape, reduction, loss_scale)
        }
        ("contrastive", &[margin], Some(same)) => {
            let loss = contrastive::Contrastive { margin, same };
            vectorwise::compute(loss, several(inputs)?, shape, reduction, loss_scale)
        }
        _ => unknown(name, parameters),
    }
}

/// As many as a loss takes.
///
/// # Errors
/// There are more or fewer.
pub(crate) fn several<X, const G: usize>(inputs: Vec<X>) -> Result<[X; G]> {
    let wrong = |inputs: Vec<X>| Error::Value(format!("{G} inputs, not {}", inputs.len()));
    inputs.try_into().map_err(wrong)
}

/// Checks a length.
///
/// # Errors
/// It is another.
pub(crate) fn require_len(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Value(format!(
        "{name} must have {expected} elements, got {found}"
    )))
}

/// What a second look at an argument finds where the first saw an element that is out of range, and
/// it is not there any more.
fn changed(name: &str) -> Error {
    Error::Changed(format!(
        "{name} changed during the call: another thread writes it"
    ))
}

fn unknown<T>(name: &str, parameters: &[f64]) -> Result<T> {
    let n = parameters.len();
    Err(Error::Value(format!(
        "there is no loss {name:?} with {n} parameters of these inputs"
    )))
}

/// Checks the factor of the gradient.
///
/// # Errors
/// It is not finite.
pub fn check_loss_scale(loss_scale: f64) -> Result<()> {
    if loss_scale.is_finite() && loss_scale > 0.0 {
        return Ok(());
    }
    Err(Error::Value(format!(
        "loss_scale must be finite and > 0, got {loss_scale}"
    )))
}

#[cfg(test)]
mod tests;
