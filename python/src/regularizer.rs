//! Penalties on the size of the parameters.

use fastoptim::clip::Array as Read;
use fastoptim::regularizer::{Pair, Regularizer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, check_disjoint, floats};
use crate::inflight;

/// The penalty on the arrays.
#[pyfunction]
fn penalty(py: Python<'_>, params: Vec<Bound<'_, PyAny>>, l1: f64, l2: f64) -> PyResult<f64> {
    let mut arrays = Vec::with_capacity(params.len());
    for (index, p) in params.iter().enumerate() {
        arrays.push(floats(&format!("params[{index}]"), p)?);
    }
    let _guard = inflight::enter(Vec::new(), arrays.iter().map(Array::range).collect())?;
    // SAFETY: checked, alive in this frame, and registered.
    let read = |array: &Array<'_>| unsafe {
        match array.dtype {
            Dtype::F32 => Read::F32(array.slice()),
            _ => Read::F64(array.slice()),
        }
    };
    let read: Vec<_> = arrays.iter().map(read).collect();
    Ok(py.detach(|| Regularizer { l1, l2 }.value(&read)))
}

/// Adds the gradient of the penalty to the gradients, and gives the penalty. A parameter without
/// gradient is left out.
#[pyfunction]
fn add_penalty(
    py: Python<'_>,
    params: Vec<Bound<'_, PyAny>>,
    grads: Vec<Bound<'_, PyAny>>,
    l1: f64,
    l2: f64,
) -> PyResult<f64> {
    if params.len() != grads.len() {
        return Err(PyValueError::new_err(format!(
            "grads has {} arrays for {} parameters",
            grads.len(),
            params.len()
        )));
    }
    let mut arrays = Vec::with_capacity(params.len());
    for (index, (p, g)) in params.iter().zip(&grads).enumerate() {
        let p = floats(&format!("params[{index}]"), p)?;
        if g.is_none() {
            continue;
        }
        let name = format!("grads[{index}]");
        let g = Array::new(&name, g)?;
        g.require_match(&name, p.dtype, &p.shape)?;
        g.require_writable(&name)?;
        arrays.push((p, g));
    }
    let read: Vec<_> = arrays.iter().map(|(p, _)| ("params", p.range())).collect();
    let written: Vec<_> = arrays.iter().map(|(_, g)| ("grads", g.range())).collect();
    check_disjoint(&written, &read)?;
    let _guard = inflight::enter(
        arrays.iter().map(|(_, g)| g.range()).collect(),
        arrays.iter().map(|(p, _)| p.range()).collect(),
    )?;
    // SAFETY: checked, disjoint, alive in this frame, and registered.
    let pair = |(p, g): &(Array<'_>, Array<'_>)| unsafe {
        match p.dtype {
            Dtype::F32 => Pair::F32(p.slice(), g.slice_mut()),
            _ => Pair::F64(p.slice(), g.slice_mut()),
        }
    };
    let mut pairs: Vec<_> = arrays.iter().map(pair).collect();
    Ok(py.detach(|| Regularizer { l1, l2 }.add_gradient(&mut pairs)))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(penalty, module)?)?;
    module.add_function(wrap_pyfunction!(add_penalty, module)?)
}
