//! Penalties on the size of the parameters.

use fastoptim::ops::penalty::Penalty;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::memory::inflight;
use crate::memory::items::Items;
use crate::memory::numpy::{Array, numbers};
use crate::memory::pairs::{Dtypes, Pairs, Side};
use crate::memory::view;
use crate::runtime::threads::detached;

/// Returns the penalty on the arrays.
#[pyfunction]
fn penalty(
    py: Python<'_>,
    names: Items<String>,
    params: Items<Bound<'_, PyAny>>,
    l1: f64,
    l2: f64,
) -> PyResult<f64> {
    if names.len() != params.len() {
        return Err(PyValueError::new_err(format!(
            "params has {} arrays for {} names",
            params.len(),
            names.len()
        )));
    }
    let mut arrays = Vec::with_capacity(params.len());
    for (name, p) in names.iter().zip(params.iter()) {
        arrays.push(numbers(&format!("params[{name:?}]"), p)?);
    }
    let _guard = inflight::enter(Vec::new(), arrays.iter().map(Array::range).collect())?;
    // SAFETY: the arrays are checked, held by this frame, and registered by the guard.
    let read = |array| unsafe { view::any_read(array) };
    let read: Vec<_> = arrays.iter().map(read).collect();
    Ok(detached(py, || Penalty { l1, l2 }.value(&read)))
}

/// Adds the gradient of the penalty to the gradients, and returns the penalty. Skips parameters
/// without a gradient.
#[pyfunction]
fn add_penalty(
    py: Python<'_>,
    names: Items<String>,
    params: Items<Bound<'_, PyAny>>,
    grads: Items<Bound<'_, PyAny>>,
    l1: f64,
    l2: f64,
) -> PyResult<f64> {
    let pairs = Pairs::new(
        Dtypes::Gradients,
        Some(&names),
        Side::read("params", &params),
        Side::written("grads", &grads),
    )?;
    let _guard = pairs.enter()?;
    // SAFETY: the arrays are checked, disjoint, held by this frame, and registered by the guard.
    let pair = |(p, g): &(Array<'_>, Array<'_>)| unsafe { view::any_pair(p, g) };
    let mut pairs: Vec<_> = pairs.arrays.iter().map(pair).collect();
    Ok(detached(py, || Penalty { l1, l2 }.add_gradient(&mut pairs)))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(penalty, module)?)?;
    module.add_function(wrap_pyfunction!(add_penalty, module)?)
}
