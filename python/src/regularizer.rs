//! Penalties on the size of the parameters.

use fastoptim::clip::Array as Read;
use fastoptim::regularizer::{Pair, Regularizer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, check_disjoint, floats};
use crate::inflight;

/// The penalty on the arrays.
#[pyfunction]
fn penalty(
    py: Python<'_>,
    names: Vec<String>,
    params: Vec<Bound<'_, PyAny>>,
    l1: f64,
    l2: f64,
) -> PyResult<f64> {
    let mut arrays = Vec::with_capacity(params.len());
    for (name, p) in names.iter().zip(&params) {
        arrays.push(floats(&format!("params[{name:?}]"), p)?);
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
    names: Vec<String>,
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
    let mut labels = Vec::with_capacity(params.len());
    for (name, (p, g)) in names.iter().zip(params.iter().zip(&grads)) {
        let label = [format!("params[{name:?}]"), format!("grads[{name:?}]")];
        let p = floats(&label[0], p)?;
        if g.is_none() {
            continue;
        }
        let g = Array::new(&label[1], g)?;
        g.require_match(&label[1], p.dtype, &p.shape)?;
        g.require_writable(&label[1])?;
        arrays.push((p, g));
        labels.push(label);
    }
    let labelled = || labels.iter().zip(&arrays);
    let read: Vec<_> = labelled()
        .map(|(label, (p, _))| (&*label[0], p.range()))
        .collect();
    let written: Vec<_> = labelled()
        .map(|(label, (_, g))| (&*label[1], g.range()))
        .collect();
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
