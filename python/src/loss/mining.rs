//! The choice of triplets.

use fastoptim::mining::{self, Kind};
use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::require_shape;
use crate::array::{Array, Dtype, floats, with_float};
use crate::error::to_py;
use crate::inflight;

type Rows<'py> = Bound<'py, PyArray1<i64>>;

/// The rows of anchors, positives and negatives.
#[pyfunction]
pub(super) fn mine_triplets<'py>(
    py: Python<'py>,
    embeddings: &Bound<'py, PyAny>,
    labels: &Bound<'py, PyAny>,
    kind: &str,
    margin: f64,
) -> PyResult<(Rows<'py>, Rows<'py>, Rows<'py>)> {
    let kind: Kind = kind.parse().map_err(to_py)?;
    let embeddings = floats("embeddings", embeddings)?;
    let &[rows, length] = &*embeddings.shape else {
        return Err(PyValueError::new_err(format!(
            "embeddings must have shape (N, D), got {:?}",
            embeddings.shape
        )));
    };
    let labels = Array::new("labels", labels)?;
    let wide: Vec<i64> = match labels.dtype {
        // SAFETY: the type that was found; the interpreter is attached.
        Dtype::I32 => unsafe { labels.slice::<i32>() }
            .iter()
            .map(|&label| label.into())
            .collect(),
        // SAFETY: as above.
        Dtype::I64 => unsafe { labels.slice::<i64>() }.to_vec(),
        other => {
            return Err(PyTypeError::new_err(format!(
                "labels must be int32 or int64, got {other}"
            )));
        }
    };
    require_shape("labels", &labels, &[rows])?;
    let _guard = inflight::enter(Vec::new(), vec![embeddings.range()])?;
    let [a, p, n] = with_float!(embeddings.dtype, T => {
        // SAFETY: the type that was found; the array is held here.
        let x = unsafe { embeddings.slice::<T>() };
        py.detach(|| mining::mine(x, length, &wide, kind, margin))
    });
    Ok((a.into_pyarray(py), p.into_pyarray(py), n.into_pyarray(py)))
}
