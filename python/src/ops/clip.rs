//! Norms and clipping of sequences of arrays.

use fastoptim::numeric::scale::ScaleFactor;
use fastoptim::ops::clip;
use fastoptim::storage::precision::AnyView;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::memory::inflight;
use crate::memory::items::Items;
use crate::memory::numpy::{Array, check_disjoint, numbers};
use crate::memory::pairs::{Dtypes, Pairs, Side};
use crate::memory::view;
use crate::runtime::commit::Then;
use crate::runtime::threads::detached;

/// Checks the arrays that are not `None`. Error messages identify them by `names`, or by index.
fn arrays<'py>(
    grads: &[Option<Bound<'py, PyAny>>],
    names: Option<&Bound<'py, PyList>>,
    written: bool,
) -> PyResult<Vec<Array<'py>>> {
    let mut arrays = Vec::with_capacity(grads.len());
    for (index, grad) in grads.iter().enumerate() {
        let Some(grad) = grad else { continue };
        // Without calling `str()`, which may handle a signal and lose the exception of its handler.
        let name = names.and_then(|names| names.get_item(index).ok()?.extract::<String>().ok());
        let name = match name {
            Some(name) => format!("grads[{name:?}]"),
            None => format!("grads[{index}]"),
        };
        let array = numbers(&name, grad)?;
        if written {
            array.require_writable(&name)?;
        }
        arrays.push(array);
    }
    if written {
        let ranges: Vec<_> = arrays
            .iter()
            .map(|array| ("grads", array.range()))
            .collect();
        check_disjoint(&ranges, &[])?;
    }
    Ok(arrays)
}

fn enter(arrays: &[Array<'_>], written: bool) -> PyResult<inflight::Guard> {
    let ranges = arrays.iter().map(Array::range).collect();
    if written {
        inflight::enter(ranges, Vec::new())
    } else {
        inflight::enter(Vec::new(), ranges)
    }
}

fn readable<'a>(arrays: &[Array<'_>]) -> Vec<AnyView<'a>> {
    // SAFETY: the arrays are checked, held by the caller's frame, and registered by its guard.
    let read = |array| unsafe { view::any_read(array) };
    arrays.iter().map(read).collect()
}

fn writable<'a>(arrays: &[Array<'_>]) -> Vec<AnyView<'a>> {
    // SAFETY: as for `readable`, and the arrays are disjoint and registered as written.
    let write = |array| unsafe { view::any_written(array) };
    arrays.iter().map(write).collect()
}

fn check_norms(max_norm: f64, norm_type: f64) -> PyResult<()> {
    for (name, x) in [("max_norm", max_norm), ("norm_type", norm_type)] {
        if x.is_nan() || x <= 0.0 {
            return Err(PyValueError::new_err(format!(
                "{name} must be > 0, got {x}"
            )));
        }
    }
    Ok(())
}

/// Returns the norm of all arrays taken as one vector.
#[pyfunction]
fn total_norm(
    py: Python<'_>,
    grads: Items<Option<Bound<'_, PyAny>>>,
    names: Option<&Bound<'_, PyList>>,
    norm_type: f64,
) -> PyResult<f64> {
    check_norms(f64::INFINITY, norm_type)?;
    let arrays = arrays(&grads, names, false)?;
    let _guard = enter(&arrays, false)?;
    let read = readable(&arrays);
    Ok(detached(py, || clip::total_norm(&read, norm_type)))
}

/// Scales the arrays to `max_norm` where the norm of all as one vector is larger, and returns that.
/// Infinity only measures.
#[pyfunction]
fn clip_to_norm(
    py: Python<'_>,
    grads: Items<Option<Bound<'_, PyAny>>>,
    max_norm: f64,
    norm_type: f64,
    error_if_nonfinite: bool,
) -> PyResult<f64> {
    check_norms(max_norm, norm_type)?;
    let written = max_norm.is_finite();
    let arrays = arrays(&grads, None, written)?;
    let _guard = enter(&arrays, written)?;
    let norm = {
        let read = readable(&arrays);
        detached(py, || clip::total_norm(&read, norm_type))
    };
    if error_if_nonfinite && !norm.is_finite() {
        return Err(PyRuntimeError::new_err(format!(
            "the total norm of order {norm_type} of the gradients is {norm}"
        )));
    }
    if written {
        let mut write = writable(&arrays);
        detached(py, || {
            clip::scale(&mut write, clip::coefficient(norm, max_norm))
        });
    }
    Ok(norm)
}

/// Scales the arrays to `max_norm` if their given norm is larger.
#[pyfunction]
fn scale_to_norm(
    py: Python<'_>,
    grads: Items<Option<Bound<'_, PyAny>>>,
    names: Option<&Bound<'_, PyList>>,
    max_norm: f64,
    norm: f64,
) -> PyResult<()> {
    check_norms(max_norm, 2.0)?;
    let arrays = arrays(&grads, names, true)?;
    let _guard = enter(&arrays, true)?;
    let mut write = writable(&arrays);
    detached(py, || {
        clip::scale(&mut write, clip::coefficient(norm, max_norm))
    });
    Ok(())
}

/// Limits every element to `-clip_value..=clip_value`.
#[pyfunction]
fn clamp(
    py: Python<'_>,
    grads: Items<Option<Bound<'_, PyAny>>>,
    names: Option<&Bound<'_, PyList>>,
    clip_value: f64,
) -> PyResult<()> {
    if clip_value.is_nan() || clip_value < 0.0 {
        return Err(PyValueError::new_err(format!(
            "clip_value must be >= 0, got {clip_value}"
        )));
    }
    let arrays = arrays(&grads, names, true)?;
    let _guard = enter(&arrays, true)?;
    let mut write = writable(&arrays);
    detached(py, || clip::clamp(&mut write, clip_value));
    Ok(())
}

/// Divides gradients by `scale`.
#[pyfunction]
#[pyo3(signature = (names, params, grads, scale, then=None))]
fn unscale(
    py: Python<'_>,
    names: Items<String>,
    params: Items<Bound<'_, PyAny>>,
    grads: Items<Bound<'_, PyAny>>,
    scale: f64,
    then: Option<Then<'_>>,
) -> PyResult<()> {
    let pairs = Pairs::new(
        Dtypes::Gradients,
        Some(&names),
        Side::read("params", &params),
        Side::written("grads", &grads),
    )?;
    let _guard = pairs.enter()?;
    let arrays: Vec<_> = pairs.arrays.into_iter().map(|(_, g)| g).collect();
    let mut write = writable(&arrays);
    detached(py, || {
        clip::scale(&mut write, ScaleFactor::quotient(1.0, scale))
    });
    then.map_or(Ok(()), |then| then.run())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(total_norm, module)?)?;
    module.add_function(wrap_pyfunction!(clip_to_norm, module)?)?;
    module.add_function(wrap_pyfunction!(scale_to_norm, module)?)?;
    module.add_function(wrap_pyfunction!(unscale, module)?)?;
    module.add_function(wrap_pyfunction!(clamp, module)?)
}
