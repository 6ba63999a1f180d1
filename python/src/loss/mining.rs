//! The choice of triplets from a batch.

use fastoptim::exec::isa;
use fastoptim::loss::triplets::{self, Kind};
use fastoptim::storage::{Encoding, Half, load_half};
use numpy::{IntoPyArray, PyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::arrays::require_shape;
use super::integers;
use crate::error::to_py;
use crate::memory::inflight;
use crate::memory::numpy::{Array, Dtype, numbers};
use crate::runtime::threads::detached;

type Indices<'py> = Bound<'py, PyArray1<i64>>;

/// The elements of the embeddings.
enum Numbers<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
    Half(Half, &'a [u16]),
}

fn refuse(found: &dyn std::fmt::Display) -> PyErr {
    PyTypeError::new_err(format!(
        "labels must be of an integer type, got {found}: labels.astype(numpy.int64) converts them"
    ))
}

fn labels_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    if let Ok(array) = object.cast::<PyUntypedArray>()
        && Dtype::of(&array.dtype()).is_none()
    {
        return Err(refuse(&array.dtype()));
    }
    Array::new("labels", object)
}

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
    let embeddings = numbers("embeddings", embeddings)?;
    let &[rows, length] = &*embeddings.shape else {
        return Err(PyValueError::new_err(format!(
            "embeddings must have shape (N, D), got {:?}",
            embeddings.shape
        )));
    };
    let labels = labels_of(labels)?;
    require_shape("labels", &labels, &[rows])?;
    let _guard = inflight::enter(Vec::new(), vec![embeddings.range(), labels.range()])?;
    let labels = integers::labels(&labels)?.ok_or_else(|| refuse(&labels.dtype))?;
    let mine = |x: Numbers<'_>| {
        detached(py, || match x {
            Numbers::Single(x) => triplets::mine(x, length, &labels, kind, margin),
            Numbers::Double(x) => triplets::mine(x, length, &labels, kind, margin),
            Numbers::Half(format, x) => {
                let mut wide = vec![0.0_f32; x.len()];
                load_half(format, x, &mut wide, isa::current());
                triplets::mine(&wide, length, &labels, kind, margin)
            }
        })
    };
    // SAFETY: the elements have the type of each case, this frame holds the array until the call
    // ends, and `_guard` registers it, so that no other call writes it.
    let [a, p, n] = mine(unsafe {
        match embeddings.dtype {
            Dtype::F32 => Numbers::Single(embeddings.slice()),
            Dtype::Number(Encoding::Half(format)) => Numbers::Half(format, embeddings.slice()),
            _ => Numbers::Double(embeddings.slice()),
        }
    })
    .map_err(to_py)?;
    Ok((a.into_pyarray(py), p.into_pyarray(py), n.into_pyarray(py)))
}
