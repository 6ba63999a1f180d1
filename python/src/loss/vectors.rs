//! Losses of several inputs, with a gradient for each.

use fastoptim::loss;
use fastoptim::loss::gaussian::Gaussian;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{Found, Integers, Written, reduction, require_dtype, require_shape, target_of};
use crate::error::to_py;
use crate::memory::items::Items;
use crate::memory::numpy::{Array, Dtype, floats, with_float};

/// Arrays of the first one's type and shape.
fn alike<'py>(named: &[(&str, &Bound<'py, PyAny>)]) -> PyResult<Vec<Array<'py>>> {
    let mut arrays: Vec<Array<'py>> = Vec::with_capacity(named.len());
    for (name, object) in named {
        let array = floats(name, object)?;
        if let Some(first) = arrays.first() {
            require_dtype(name, &array, first)?;
            require_shape(name, &array, &first.shape)?;
        }
        arrays.push(array);
    }
    Ok(arrays)
}

/// A loss of vectors by name: its inputs, and a target with a number per row where it has one.
#[pyfunction]
#[pyo3(signature = (name, parameters, kind, inputs, target, out, loss_scale, gradient))]
#[expect(clippy::too_many_arguments)]
pub(super) fn vector_loss<'py>(
    py: Python<'py>,
    name: &str,
    parameters: Items<f64>,
    kind: &str,
    inputs: Items<(String, Bound<'py, PyAny>)>,
    target: Option<(String, Bound<'py, PyAny>)>,
    out: Option<&Bound<'py, PyAny>>,
    loss_scale: f64,
    gradient: bool,
) -> PyResult<Found<'py>> {
    let mean = reduction(kind)?;
    let named: Vec<_> = inputs.iter().map(|(name, x)| (&**name, x)).collect();
    let inputs = alike(&named)?;
    let shape = match inputs.first().map(|first| &*first.shape) {
        Some(&[rows, length]) => [rows, length],
        other => {
            return Err(PyValueError::new_err(format!(
                "{} must have shape (N, D), got {:?}",
                named.first().map_or("an input", |(name, _)| name),
                other.unwrap_or_default()
            )));
        }
    };
    let mut read = Vec::new();
    let target = match &target {
        None => None,
        Some((name, object)) => {
            let target = Array::new(name, object)?;
            if !matches!(target.dtype, Dtype::I32 | Dtype::I64) {
                require_dtype(name, &target, &inputs[0])?;
            }
            require_shape(name, &target, &shape[..1])?;
            read.push((&**name, target.range()));
            Some(target)
        }
    };
    let values = mean.is_none().then_some(&shape[..1]);
    let written = Written::new(py, &inputs, &read, out, gradient, values)?;
    let integers = target.as_ref().and_then(Integers::of);
    let value = with_float!(inputs[0].dtype, T => {
        // SAFETY: all arrays have this type, this frame holds them until the call ends, and `written`
        // registered them, so that no other call writes them.
        let (vectors, target, reduction) = unsafe {
            (
                written.inputs::<T>(&inputs),
                target.as_ref().map(|target| target_of(target, integers.as_ref())),
                written.reduction(mean == Some(true)),
            )
        };
        py.detach(|| {
            loss::of_vectors(name, &parameters, vectors, shape, target, reduction, loss_scale)
        })
    });
    written.found(py, value.map_err(to_py)?)
}

/// The likelihood of targets under normal distributions, with gradients by mean and variance.
#[pyfunction]
#[pyo3(signature = (full, eps, kind, input, target, var, out, loss_scale, gradient))]
#[expect(clippy::too_many_arguments)]
pub(super) fn gaussian_loss<'py>(
    py: Python<'py>,
    full: bool,
    eps: f64,
    kind: &str,
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    var: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    loss_scale: f64,
    gradient: bool,
) -> PyResult<Found<'py>> {
    let mean = reduction(kind)?;
    let mut inputs = alike(&[("input", input), ("var", var), ("target", target)])?;
    let target = inputs.pop().expect("three went in");
    let values = mean.is_none().then_some(&*target.shape);
    let read = [("target", target.range())];
    let written = Written::new(py, &inputs, &read, out, gradient, values)?;
    let value = with_float!(target.dtype, T => {
        // SAFETY: all arrays have this type, this frame holds them until the call ends, and `written`
        // registered them, so that no other call writes them.
        let (inputs, target, reduction) = unsafe {
            (
                written.inputs::<T>(&inputs),
                target.slice(),
                written.reduction(mean == Some(true)),
            )
        };
        let inputs = inputs.try_into().expect("mean and variance");
        py.detach(|| Gaussian { full, eps }.compute(inputs, target, reduction, loss_scale))
    });
    written.found(py, value.map_err(to_py)?)
}
