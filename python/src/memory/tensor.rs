//! Checks and descriptions of PyTorch tensors, as kernels need them.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
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

    /// Returns whether the elements are aligned and without gaps.
    pub(crate) fn is_dense(&self) -> bool {
        let aligned = self.dtype.aligns(self.data);
        aligned && (strided::is_c_order(self.shape, self.strides) || self.form().is_dense())
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
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        let mut dims = self.shape.iter().zip(seen.shape);
        self.data == Address(seen.data)
            && self.dtype == seen.dtype
            && self.strides == seen.strides
            && self.shape.len() == seen.shape.len()
            && dims.all(|(&own, &dim)| own as i64 == dim)
    }

    /// Returns whether the elements are aligned and without gaps.
    pub(crate) fn is_dense(&self) -> bool {
        strided::is_dense(&self.shape, &self.strides) && self.dtype.aligns(self.data.0)
    }
}

/// An attribute of tensors that is written in C, without the search for its name in their classes.
struct Getter {
    descriptor: Py<PyAny>,
    get: ffi::descrgetfunc,
}

impl Getter {
    /// Returns the getter of a data descriptor, or `None` for other objects.
    fn new(descriptor: &Bound<'_, PyAny>) -> Option<Self> {
        let class = descriptor.get_type_ptr();
        // SAFETY: a class; its slots of these numbers have these types, or are null.
        let (get, set) = unsafe {
            (
                ffi::PyType_GetSlot(class, ffi::Py_tp_descr_get),
                ffi::PyType_GetSlot(class, ffi::Py_tp_descr_set),
            )
        };
        (!get.is_null() && !set.is_null()).then(|| Self {
            descriptor: descriptor.clone().unbind(),
            // SAFETY: as above, and not null.
            get: unsafe { std::mem::transmute::<*mut c_void, ffi::descrgetfunc>(get) },
        })
    }

    /// Returns the attribute of an object of a class that has the descriptor.
    fn of<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let class = object.get_type_ptr().cast();
        // SAFETY: the function checks its arguments, and returns a new reference or null with an
        // error.
        unsafe {
            let found = (self.get)(self.descriptor.as_ptr(), object.as_ptr(), class);
            Bound::from_owned_ptr_or_err(object.py(), found)
        }
    }
}

/// The objects of PyTorch that recognize and create tensors.
pub(crate) struct Torch {
    exchange: Option<Exchange>,
    grad: Option<Getter>,
    requires_grad: Option<Getter>,
    /// `torch.empty_like`.
    empty_like: Py<PyAny>,
    /// Tensors without dimensions, of float32 and float64.
    scalars: [Py<PyAny>; 2],
    classes: Vec<Py<PyType>>,
    /// A function in C that counts a change of a tensor, or of those of a list.
    increment_version: Py<PyAny>,
    takes_lists: bool,
    /// A function that counts the modes that take part in calls of tensors' methods.
    modes: Py<PyAny>,
    /// The error of the last description by Python methods, such as an interrupt.
    failure: Mutex<Option<PyErr>>,
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
            grad: Getter::new(&support.getattr("GRAD")?),
            requires_grad: Getter::new(&support.getattr("REQUIRES_GRAD")?),
            empty_like: support.getattr("EMPTY_LIKE")?.unbind(),
            scalars: support.getattr("SCALARS")?.extract()?,
            classes: classes.into_iter().map(Bound::unbind).collect(),
            increment_version: support.getattr("INCREMENT_VERSION")?.unbind(),
            modes: support.getattr("MODES")?.unbind(),
            takes_lists: support.getattr("TAKES_LISTS")?.is_truthy()?,
            failure: Mutex::new(None),
            support: support.clone().unbind(),
        })
    }

    /// Keeps an error for `refusal`, or discards that of an earlier description.
    fn set_failure(&self, failure: Option<PyErr>) -> Option<PyErr> {
        let mut kept = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, failure)
    }

    /// Returns whether the class of an object is a known tensor class. Other classes may interpret
    /// their memory differently.
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

    /// Returns the description of a strided CPU tensor of numbers or class indices, or `None` for
    /// all other objects.
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
                // SAFETY: a tensor or a parameter; the function is that of torch.Tensor, their
                // base.
                let found = unsafe { exchange.describe(tensor) }.ok()?;
                let dtype = dtype_of(found.dtype)?;
                found.on_cpu.then_some(Seen {
                    data: found.data,
                    dtype,
                    shape: found.shape,
                    strides: found.strides,
                })?
            }
            None => {
                let (found, failure) = match self.ask(tensor, scratch) {
                    Ok(found) => (found, None),
                    Err(error) => (None, Some(error)),
                };
                self.set_failure(failure);
                found?
            }
        };
        let absent = seen.data.is_null() && !seen.shape.contains(&0);
        (seen.shape.len() == seen.strides.len() && !absent).then_some(seen)
    }

    /// As [`describe`](Self::describe), for callers that do not use `refusal`.
    ///
    /// # Errors
    /// The description was interrupted, or stopped by another exception that is not an `Exception`.
    pub(crate) fn try_describe<'a>(
        &self,
        tensor: &'a Bound<'_, PyAny>,
        scratch: &'a mut Scratch,
    ) -> PyResult<Option<Seen<'a>>> {
        let seen = self.describe(tensor, scratch);
        if seen.is_none()
            && let Some(error) = self.set_failure(None)
            && !error.is_instance_of::<PyException>(tensor.py())
        {
            return Err(error);
        }
        Ok(seen)
    }

    /// Returns whether tensors are described without a Python call.
    pub(crate) fn is_direct(&self) -> bool {
        self.exchange.is_some()
    }

    /// Returns the gradient of a parameter, or `None` of Python.
    pub(crate) fn grad<'py>(&self, parameter: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match &self.grad {
            Some(getter) if self.is_known(parameter) => getter.of(parameter),
            _ => parameter.getattr(intern!(parameter.py(), "grad")),
        }
    }

    /// Returns whether autograd needs the gradient of a tensor.
    pub(crate) fn requires_grad(&self, tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
        match &self.requires_grad {
            Some(getter) if self.is_known(tensor) => getter.of(tensor)?,
            _ => tensor.getattr(intern!(tensor.py(), "requires_grad"))?,
        }
        .is_truthy()
    }

    /// Returns an uninitialized tensor of the same dtype and shape.
    pub(crate) fn empty_like<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.empty_like.bind(tensor.py()).call1((tensor,))
    }

    /// Returns an uninitialized tensor without dimensions, of float32 or float64.
    pub(crate) fn empty_scalar<'py>(
        &self,
        py: Python<'py>,
        dtype: Dtype,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.empty_like(self.scalars[usize::from(dtype == Dtype::F64)].bind(py))
    }

    /// Returns the address of a gradient, if a parameter still has this layout, which is dense, and
    /// the gradient has the same dtype, shape and strides. No Python code runs.
    pub(crate) fn gradient_like(
        &self,
        form: &Form,
        parameter: &Bound<'_, PyAny>,
        gradient: &Bound<'_, PyAny>,
    ) -> Option<*mut u8> {
        let exchange = self.exchange?;
        if !self.is_known(parameter) || !self.is_known(gradient) {
            return None;
        }
        // SAFETY: tensors or parameters; the function is that of torch.Tensor, their base.
        let (p, g) = unsafe {
            (
                exchange.describe(parameter).ok()?,
                exchange.describe(gradient).ok()?,
            )
        };
        let dtype = dtype_of(p.dtype)?;
        let seen = Seen {
            data: p.data,
            dtype,
            shape: p.shape,
            strides: p.strides,
        };
        let same = p.on_cpu
            && g.on_cpu
            && form.matches(&seen)
            && g.dtype == p.dtype
            && g.shape == p.shape
            && g.strides == p.strides
            && !g.data.is_null()
            && dtype.aligns(g.data);
        same.then_some(g.data)
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

    /// Increments the versions of tensors that were written, so that autograd detects stale graphs.
    /// No Python code runs.
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
        if let Some(error) = self.set_failure(None) {
            return error;
        }
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
