//! Checks that several losses and their drivers share.

use crate::error::{Error, Result};

/// Converts the inputs of a call to an array.
///
/// # Errors
/// Their number is not `G`.
pub(crate) fn exactly<X, const G: usize>(inputs: Vec<X>) -> Result<[X; G]> {
    let wrong = |inputs: Vec<X>| {
        let found = inputs.len();
        Error::Value(format!("expected {G} inputs, got {found}"))
    };
    inputs.try_into().map_err(wrong)
}

/// Checks a length.
///
/// # Errors
/// It is not the expected one.
pub(crate) fn require_len(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Value(format!(
        "{name} must have {expected} elements, got {found}"
    )))
}

/// The error of a check that found an element out of range and, on looking for that element to name
/// it in the message, found none.
pub(crate) fn changed(name: &str) -> Error {
    Error::Changed(format!(
        "{name} changed during the call: another thread writes it"
    ))
}

/// Checks the factor of the gradient.
///
/// # Errors
/// It is not finite, or not > 0.
pub(crate) fn check_loss_scale(loss_scale: f64) -> Result<()> {
    if loss_scale.is_finite() && loss_scale > 0.0 {
        return Ok(());
    }
    Err(Error::Value(format!(
        "loss_scale must be finite and > 0, got {loss_scale}"
    )))
}
