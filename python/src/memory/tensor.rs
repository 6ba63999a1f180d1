//! Checks and descriptions of PyTorch tensors, as kernels need them.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};

use crate::memory::dlpack::{ElementType, Exchange};
use crate::memory::numpy::{Address, Dtype};
use crate::memory::strided;

/// A description of a tensor, which is valid until Python code runs.
pub(crate) struct Seen<'a> {
    pub(crate) data: *mut u8,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [i64],
    pub(crate) strides: &'a [i64],
}

impl Seen<'_> {
    pub(crate) fn form(&self) -> Form {
        Form {
            data: Address(self.data),
            dtype: self.dtype,
            shape: self.shape.iter().map(|&n| n as usize).collect(),
            strides: self.strides.to_vec(),
        }
    }
}

/// The layout of a tensor when it was checked, so that later checks are cheap.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) data: Address,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<i64>,
}

impl Form {
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether a tensor still has this layout.
    pub(crate) fn is(&self, seen: &Seen<'_>) -> bool {
        self.data == Address(seen.data)
            && self.dtype == seen.dtype
            && self.strides.iter().eq(seen.strides)
            && self
                .shape
                .iter()
                .map(|&n| n as i64)
                .eq(seen.shape.iter().copied())
    }

    /// Returns whether the elements are aligned and without gaps.
    pub(crate) fn is_dense(&self) -> bool {
        strided::is_dense(&self.shape, &self.strides)
            && self.data.0.addr().is_multiple_of(self.dtype.size())
    }
}

/// The objects of PyTorch that recognize and create tensors.
pub(crate) struct Torch {
    exchange: Option<Exchange>,
    classes: Vec<Py<PyType>>,
    /// A function in C that counts a change of a tensor, or of those of a list.
    increment_version: Py<PyAny>,
    takes_lists: bool,
    /// A function that counts the modes that take part in calls of tensors' methods.
    modes: Py<PyAny>,
    /// Functions of `fastoptim.torch.optim._tensors`.
    pub(crate) support: Py<PyAny>,
}

/// The shape and strides of a tensor whose class has no `Exchange`.
#[derive(Default)]
pub(crate) struct Scratch {
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Torch {
    /// Reads `CLASSES`, `EXCHANGE` and the functions of a module.
    pub(crate) fn new(support: &Bound<'_, PyAny>) -> PyResult<Self> {
        let classes: Vec<Bound<'_, PyType>> = support.getattr("CLASSES")?.extract()?;
        Ok(Self {
            exchange: Exchange::new(&support.getattr("EXCHANGE")?),
            classes: classes.into_iter().map(Bound::unbind).collect(),
            increment_version: support.getattr("INCREMENT_VERSION")?.unbind(),
            modes: support.getattr("MODES")?.unbind(),
            takes_lists: support.getattr("TAKES_LISTS")?.is_truthy()?,
            support: support.clone().unbind(),
        })
    }

    /// Returns whether the class of an object is a known tensor class. Other classes may interpret their
    /// memory differently.
    pub(crate) fn is_known(&self, object: &Bound<'_, PyAny>) -> bool {
        let class = object.get_type_ptr();
        self.classes
            .iter()
            .any(|known| known.as_ptr() == class.cast())
    }

    /// Returns the description of a strided CPU tensor of floats or 8-bit codes, or `None` for all
    /// other objects; `refusal` gives the reason.
    pub(crate) fn see<'a>(
        &self,
        tensor: &'a Bound<'_, PyAny>,
        scratch: &'a mut Scratch,
    ) -> Option<Seen<'a>> {
        let stored = |seen: &Seen<'_>| matches!(seen.dtype, Dtype::Number(_));
        self.describe(tensor, scratch).filter(stored)
    }

    /// Returns the description of a strided CPU tensor of numbers or class indices, or `None` for all
    /// other objects.
    pub(crate) fn describe<'a>(
        &self,
        tensor: &'a Bound<'_, PyAny>,
        scratch: &'a mut Scratch,
    ) -> Option<Seen<'a>> {
        if !self.is_known(tensor) {
            return None;
        }
        let seen = match self.exchange {
            Some(exchange) => {
                // SAFETY: a tensor or a parameter; the function is that of torch.Tensor, their base.
                let found = unsafe { exchange.describe(tensor) }.ok()?;
                let dtype = dtype_of(found.dtype)?;
                found.on_cpu.then_some(Seen {
                    data: found.data,
                    dtype,
                    shape: found.shape,
                    strides: found.strides,
                })?
            }
            None => self.ask(tensor, scratch).ok()??,
        };
        let absent = seen.data.is_null() && !seen.shape.contains(&0);
        (seen.shape.len() == seen.strides.len() && !absent).then_some(seen)
    }

    /// Describes a tensor by its Python methods.
    fn ask<'a>(
        &self,
        tensor: &Bound<'_, PyAny>,
        scratch: &'a mut Scratch,
    ) -> PyResult<Option<Seen<'a>>> {
        let py = tensor.py();
        let found = self.support.bind(py).call_method1("described", (tensor,))?;
        if found.is_none() {
            return Ok(None);
        }
        let (data, dtype, shape, strides): (usize, String, Vec<i64>, Vec<i64>) = found.extract()?;
        (scratch.shape, scratch.strides) = (shape, strides);
        Ok(Dtype::named(&dtype).map(|dtype| Seen {
            data: std::ptr::with_exposed_provenance_mut(data),
            dtype,
            shape: &scratch.shape,
            strides: &scratch.strides,
        }))
    }

    /// Returns whether methods of tensors may run Python code.
    pub(crate) fn has_modes(&self, py: Python<'_>) -> PyResult<bool> {
        self.modes.bind(py).call0()?.is_truthy()
    }

    /// Increments the versions of tensors that were written, so that autograd detects stale graphs. No
    /// Python code runs.
    pub(crate) fn changed(&self, py: Python<'_>, tensors: &[&Bound<'_, PyAny>]) -> PyResult<()> {
        let increment = self.increment_version.bind(py);
        if tensors.is_empty() {
            return Ok(());
        }
        if self.takes_lists {
            increment.call1((PyList::new(py, tensors)?,))?;
            return Ok(());
        }
        for tensor in tensors {
            increment.call1((tensor,))?;
        }
        Ok(())
    }

    /// Returns the error for an object that `see` rejects.
    pub(crate) fn refusal(&self, name: &str, object: &Bound<'_, PyAny>) -> PyErr {
        let py = object.py();
        let support = self.support.bind(py);
        match support.call_method1("refusal", (name, object)) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    }
}

/// Converts an element type of DLPack.
fn dtype_of(found: ElementType) -> Option<Dtype> {
    match (found.code, found.bits, found.lanes) {
        (2, 16, 1) => Some(Dtype::F16),
        (2, 32, 1) => Some(Dtype::F32),
        (2, 64, 1) => Some(Dtype::F64),
        (4, 16, 1) => Some(Dtype::BF16),
        (0, 8, 1) => Some(Dtype::I8),
        (0, 16, 1) => Some(Dtype::I16),
        (0, 32, 1) => Some(Dtype::I32),
        (0, 64, 1) => Some(Dtype::I64),
        (1, 8, 1) => Some(Dtype::U8),
        _ => None,
    }
}
