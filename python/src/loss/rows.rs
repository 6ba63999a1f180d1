//! Losses of rows of scores with a target each.

use fastoptim::loss::{self, Labels};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::{Found, Integers, Written, reduction, require_dtype, require_shape, target_of};
use crate::error::to_py;
use crate::memory::items::Items;
use crate::memory::numpy::{Array, Dtype, floats, with_float};

/// A loss of rows by name.
#[pyfunction]
#[pyo3(signature = (
    name, parameters, weight, ignore_index, kind, input, target, out, loss_scale, gradient
))]
#[expect(clippy::too_many_arguments)]
pub(super) fn row_loss<'py>(
    py: Python<'py>,
    name: &str,
    parameters: Items<f64>,
    weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Option<i64>,
    kind: &str,
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    loss_scale: f64,
    gradient: bool,
) -> PyResult<Found<'py>> {
    let mean = reduction(kind)?;
    let input = floats("input", input)?;
    let &[rows, classes] = &*input.shape else {
        return Err(PyValueError::new_err(format!(
            "input must have shape (N, C), got {:?}",
            input.shape
        )));
    };
    let target = Array::new("target", target)?;
    match target.dtype {
        Dtype::I32 | Dtype::I64 => require_shape("target", &target, &[rows])?,
        _ if name == "cross_entropy" => {
            require_dtype("target", &target, &input)?;
            require_shape("target", &target, &input.shape)?;
        }
        other => {
            return Err(PyTypeError::new_err(format!(
                "target must be class indices, int32 or int64, got {other}"
            )));
        }
    }
    let mut read = vec![("target", target.range())];
    let weight_name = if name == "focal" { "alpha" } else { "weight" };
    let weight = weight
        .map(|weight| Array::new(weight_name, weight))
        .transpose()?;
    if let Some(weight) = &weight {
        require_dtype(weight_name, weight, &input)?;
        require_shape(weight_name, weight, &[classes])?;
        read.push((weight_name, weight.range()));
    }
    let values = mean.is_none().then_some(&input.shape[..1]);
    let inputs = std::slice::from_ref(&input);
    let written = Written::new(py, inputs, &read, out, gradient, values)?;
    let integers = Integers::of(&target);
    let value = with_float!(input.dtype, T => {
        // SAFETY: all arrays have this type, this frame holds them until the call ends, and `written`
        // registered them, so that no other call writes them.
        let (scores, reduction, target, weight) = unsafe {
            (
                written.input::<T>(&input),
                written.reduction(mean == Some(true)),
                target_of(&target, integers.as_ref()),
                weight.as_ref().map(|weight| weight.slice()),
            )
        };
        let labels = Labels { shape: [rows, classes], target, weight, ignore_index };
        py.detach(|| loss::of_rows(name, &parameters, labels, scores, reduction, loss_scale))
    });
    written.found(py, value.map_err(to_py)?)
}
