//! The choice of triplets from a batch.

use fastoptim::loss::triplets::{self, Kind};
use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::arrays::require_shape;
use super::integers::Integers;
use crate::error::to_py;
use crate::memory::inflight;
use crate::memory::numpy::{Array, floats, with_float};

type Indices<'py> = Bound<'py, PyArray1<i64>>;

/// Chooses triplets: the indices of the rows of anchors, positives and negatives.
#[pyfunction]
pub(super) fn mine_triplets<'py>(
    py: Python<'py>,
    embeddings: &Bound<'py, PyAny>,
    labels: &Bound<'py, PyAny>,
    kind: &str,
    margin: f64,
) -> PyResult<(Indices<'py>, Indices<'py>, Indices<'py>)> {
    let kind: Kind = kind.parse().map_err(to_py)?;
    let embeddings = floats("embeddings", embeddings)?;
    let &[rows, length] = &*embeddings.shape else {
        return Err(PyValueError::new_err(format!(
            "embeddings must have shape (N, D), got {:?}",
            embeddings.shape
        )));
    };
    let labels = Array::new("labels", labels)?;
    require_shape("labels", &labels, &[rows])?;
    let _guard = inflight::enter(Vec::new(), vec![embeddings.range(), labels.range()])?;
    let Some(integers) = Integers::of(&labels) else {
        return Err(PyTypeError::new_err(format!(
            "labels must be int32 or int64, got {}",
            labels.dtype
        )));
    };
    let labels = integers.widened();
    let [a, p, n] = with_float!(embeddings.dtype, T => {
        // SAFETY: the elements have this type, this frame holds the array until the call ends, and
        // `_guard` registers it, so that no other call writes it.
        let x = unsafe { embeddings.slice::<T>() };
        py.detach(|| triplets::mine(x, length, &labels, kind, margin))
    })
    .map_err(to_py)?;
    Ok((a.into_pyarray(py), p.into_pyarray(py), n.into_pyarray(py)))
}
