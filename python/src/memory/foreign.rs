//! Arrays of another library than NumPy, as the modules of Python that know it describe them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::memory::numpy::{Address, Array, Dtype};

/// A C-contiguous array: whose memory it is, where, and what it holds. Nothing is copied.
#[pyclass(module = "fastoptim._core", frozen)]
pub(crate) struct ForeignArray {
    /// Held, so that the memory stays.
    _owner: Py<PyAny>,
    data: Address,
    dtype: Dtype,
    shape: Vec<usize>,
}

#[pymethods]
impl ForeignArray {
    /// Describes memory. Only the modules of this package that know a library make these: `owner`
    /// must keep the memory at `address` alive, and it must have the elements of `shape`.
    #[new]
    fn new(owner: Py<PyAny>, address: usize, dtype: &str, shape: Vec<usize>) -> PyResult<Self> {
        let dtype = Dtype::named(dtype)
            .ok_or_else(|| PyTypeError::new_err(format!("no kernel knows the dtype {dtype}")))?;
        Ok(Self {
            _owner: owner,
            data: Address(std::ptr::with_exposed_provenance_mut(address)),
            dtype,
            shape,
        })
    }
}

impl ForeignArray {
    /// It as an array of a call; `name` is the argument in messages.
    pub(crate) fn array<'py>(name: &str, object: &Bound<'py, Self>) -> PyResult<Array<'py>> {
        let this = object.get();
        let len = this.shape.iter().product();
        if !this.data.0.addr().is_multiple_of(this.dtype.size()) {
            return Err(PyValueError::new_err(format!(
                "{name} must be aligned to its element size; its clone() is"
            )));
        }
        Ok(Array {
            object: object.clone().into_any(),
            dtype: this.dtype,
            shape: this.shape.clone(),
            len,
            data: this.data.0,
            writable: true,
        })
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ForeignArray>()
}
