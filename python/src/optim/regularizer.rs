//! Regularizers, as `step` and parameter groups are given them.

use fastoptim::ops::penalty::Penalty;
use fastoptim::step::Regularization;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::error::to_py;

/// What a regularizer asks for, checked; nothing of None.
pub(super) fn read(object: &Bound<'_, PyAny>) -> PyResult<Regularization> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if object.is_none() {
        return Ok(Regularization::NONE);
    }
    let class = CLASS.import(object.py(), "fastoptim.params.regularizers", "Regularizer")?;
    if !object.is_instance(class)? {
        return Err(PyTypeError::new_err(format!(
            "regularizer must be one of fastoptim.regularizers or None, got {}",
            object.repr()?
        )));
    }
    let [l1, l2]: [f64; 2] = [
        object.getattr("l1")?.extract()?,
        object.getattr("l2")?.extract()?,
    ];
    // What is proximal is no part of the gradient.
    let (l1, shrinkage) = if object.getattr("proximal")?.extract()? {
        (0.0, l1)
    } else {
        (l1, 0.0)
    };
    let penalty = Penalty { l1, l2 };
    let read = Regularization { penalty, shrinkage };
    read.check().map_err(to_py)?;
    Ok(read)
}
