//! Tensors of PyTorch as arrays of a call.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::memory::items::Items;
use crate::memory::numpy::Array;
use crate::memory::strided;
use crate::memory::tensor::{Scratch, Torch};

/// A dense CPU tensor that is to be used as an array. Its memory is looked up in each call, since a
/// tensor may be given other memory between two of them.
#[pyclass(module = "fastoptim._core", frozen)]
pub(crate) struct ForeignArray {
    tensor: Py<PyAny>,
    /// Whether it is used as a 1-D array in the order of its memory.
    flat: bool,
}

#[pymethods]
impl ForeignArray {
    #[new]
    pub(crate) fn new(tensor: Py<PyAny>, flat: bool) -> Self {
        Self { tensor, flat }
    }
}

impl ForeignArray {
    /// Returns the array; error messages use `name`.
    pub(crate) fn array<'py>(name: &str, object: &Bound<'py, Self>) -> PyResult<Array<'py>> {
        let py = object.py();
        let (this, torch) = (object.get(), torch(py)?);
        let mut scratch = Scratch::default();
        let tensor = this.tensor.bind(py);
        let form = torch
            .try_describe(tensor, &mut scratch)?
            .map(|seen| seen.form())
            .ok_or_else(|| {
                PyTypeError::new_err(format!(
                    "{name} must be a dense CPU tensor of a dtype that kernels know"
                ))
            })?;
        let order = strided::c_order(&form.shape);
        let in_order = strided::agree(&form.shape, &form.strides, &order);
        if !form.is_dense() || !(this.flat || in_order) {
            return Err(PyValueError::new_err(format!(
                "{name} must be contiguous and aligned to its element size; its clone() is"
            )));
        }
        let len = form.len();
        Ok(Array {
            object: object.clone().into_any(),
            dtype: form.dtype,
            shape: if this.flat { vec![len] } else { form.shape },
            len,
            data: form.data.0,
            writable: true,
        })
    }
}

/// Returns floating-point tensors as 1-D arrays in the order of their memory, and `None` for those
/// that have no such array: their memory has gaps, is not aligned, or stands for its negative.
#[pyfunction]
fn dense_tensors(
    py: Python<'_>,
    tensors: Items<Bound<'_, PyAny>>,
) -> PyResult<Vec<Option<ForeignArray>>> {
    let (torch, mut scratch) = (torch(py)?, Scratch::default());
    let dense = |tensor: Bound<'_, PyAny>| {
        let Some(seen) = torch.try_describe(&tensor, &mut scratch)? else {
            return Ok(None);
        };
        if !seen.dtype.is_float() || !seen.is_dense() {
            return Ok(None);
        }
        let negative = tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()?;
        Ok((!negative).then(|| ForeignArray {
            tensor: tensor.unbind(),
            flat: true,
        }))
    };
    tensors.into_iter().map(dense).collect()
}

/// Returns the functions of PyTorch, which are imported at the first use of a tensor.
pub(crate) fn torch(py: Python<'_>) -> PyResult<&'static Torch> {
    static TORCH: PyOnceLock<Torch> = PyOnceLock::new();
    TORCH.get_or_try_init(py, || {
        Torch::new(&py.import("fastoptim.torch.optim._tensors")?.into_any())
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(dense_tensors, module)?)?;
    module.add_class::<ForeignArray>()
}
