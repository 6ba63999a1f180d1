//! A parameter with its state, as the engine keeps it between steps.

use fastoptim::segment::MAX_SCALARS;
use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Address, Dtype, Layout, floats};

/// One state array of a parameter.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) array: Py<PyUntypedArray>,
    pub(crate) data: Address,
    pub(crate) len: usize,
    /// Which allocation it is a piece of.
    pub(crate) slab: usize,
    /// Whether a step has written it, or a load.
    pub(crate) started: bool,
}

pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) array: Py<PyAny>,
    pub(crate) layout: Layout,
    pub(crate) group: usize,
    pub(crate) step: u64,
    pub(crate) scalars: [f64; MAX_SCALARS],
    pub(crate) slots: Vec<Slot>,
}

impl Parameter {
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Its memory, if it is still what was checked when it was added.
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        let name = &self.name;
        let object = self.array.bind(py);
        let (data, writable) = if let Some(found) = self.layout.recognize(object) {
            found
        } else {
            let array = floats(&format!("params[{name:?}]"), object)?;
            if array.dtype != self.layout.dtype || array.shape != self.layout.shape {
                return Err(PyValueError::new_err(format!(
                    "params[{name:?}] is no longer {} of shape {:?}",
                    self.layout.dtype, self.layout.shape
                )));
            }
            (array.data, array.writable)
        };
        if Address(data) != self.layout.data {
            return Err(PyValueError::new_err(format!(
                "params[{name:?}] has moved in memory"
            )));
        }
        if !writable {
            return Err(PyValueError::new_err(format!(
                "params[{name:?}] is read-only"
            )));
        }
        Ok(())
    }
}

/// Zeros in one allocation, that starts on a cache line.
pub(crate) fn slab<'py>(py: Python<'py>, len: usize, dtype: Dtype) -> PyResult<Bound<'py, PyAny>> {
    let dtype = py
        .import("numpy")?
        .getattr("dtype")?
        .call1((dtype.to_string(),))?;
    py.import("fastoptim.buffer")?
        .getattr("aligned_zeros")?
        .call1((len, dtype))
}

/// # Safety
/// `len` elements of type `T` are alive at `data` for `'a`, aligned, and nobody else has them.
pub(crate) unsafe fn slice_mut<'a, T>(data: Address, len: usize) -> &'a mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the caller's word.
    unsafe { std::slice::from_raw_parts_mut(data.0.cast(), len) }
}
