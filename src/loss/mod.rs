//! The losses: one file each, and the drivers' view of what they read and write.
//!
//! A loss of one element at a time implements [`Pointwise`](crate::pointwise::Pointwise) and has a
//! line in the list below; the bindings and the tests iterate the list. Losses of rows have
//! signatures of their own and stand on [`rowwise`](crate::rowwise).

pub mod absolute;
mod buffers;
mod classes;
pub mod cross_entropy;
pub mod likelihood;
mod logistic;
pub mod margin;
pub mod mse;

pub(crate) use buffers::{Buffers, Partials, piece};
pub use buffers::{Input, Reduction};

use crate::error::{Error, Result};
use crate::math::Math;
use crate::pointwise;

/// The list: the name of each elementwise loss, and how its parameters make it. Where a number is
/// given for a parameter, the loss is one of its own.
macro_rules! elementwise {
    ($($name:literal: $type:ty, [$($parameter:pat),*] => $make:expr;)*) => {
        /// One elementwise loss by name, with its gradient: the value under `reduction`.
        ///
        /// # Errors
        /// The name or the number of parameters is unknown.
        pub fn elementwise<T: Math>(
            name: &str,
            parameters: &[f64],
            input: Input<'_, T>,
            target: &[T],
            reduction: Reduction<'_, T>,
            loss_scale: f64,
        ) -> Result<f64> {
            check_loss_scale(loss_scale)?;
            match (name, parameters) {
                $(($name, &[$($parameter),*]) => {
                    let loss: $type = $make;
                    Ok(pointwise::compute(loss, input, target, reduction, loss_scale))
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
