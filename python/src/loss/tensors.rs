//! The losses of tensors of which nothing has to be converted, computed in one call from Python.

use fastoptim::loss::signature::{InputShape, Signature};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::arguments::{Arguments, Reduce};
use super::{compute, kind_of};
use crate::memory::foreign::{ForeignArray, torch};
use crate::memory::numpy::Dtype;
use crate::memory::pages::request_huge_pages;
use crate::memory::strided;
use crate::memory::tensor::{Scratch, Seen, Torch};

/// The value and, if they are wanted, the gradients.
type Computed<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyList>>);

/// Larger allocations get new pages from the system each time: the largest `M_MMAP_THRESHOLD` of
/// glibc.
const RECYCLED: usize = 32 << 20;

/// Computes the reduced value of a loss and, if gradients are enabled and a tensor requires one,
/// the gradients by all inputs of the loss. `signs` has the sign with which the gradient of each
/// tensor is that of an input of the loss, and 0 for a tensor without a gradient. Returns `None`
/// for calls in which something has to be converted, to be refused or to be left to PyTorch.
#[pyfunction]
fn tensor_loss<'py>(
    py: Python<'py>,
    name: &str,
    arguments: &Bound<'py, PyDict>,
    tensors: &Bound<'py, PyTuple>,
    signs: Vec<i8>,
    gradients_enabled: bool,
) -> PyResult<Option<Computed<'py>>> {
    let (kind, torch) = (kind_of(name)?, torch(py)?);
    if !arguments.iter().all(|(_, value)| is_plain(&value)) {
        return Ok(None);
    }
    let Some(usual) = usual(torch, kind.signature(), tensors, &signs)? else {
        return Ok(None);
    };
    let arguments = Arguments::read(kind, arguments)?;
    if arguments.reduce == Reduce::None {
        return Ok(None);
    }
    let value = torch.empty_scalar(py, usual.dtype)?;
    if scalar_data(torch, &value, usual.dtype)?.is_none() {
        // A mode that is active makes other tensors.
        return Ok(None);
    }
    let mut gradients = Vec::new();
    if gradients_enabled && usual.requires_gradient {
        for (tensor, _) in tensors.iter().zip(&signs).filter(|(_, sign)| **sign > 0) {
            gradients.push(gradient_like(&tensor)?);
        }
    }
    let gradients = PyList::new(py, gradients)?;
    let out = match gradients.len() {
        0 => None,
        1 => Some(array(&gradients.get_item(0)?)?),
        _ => Some(arrays(py, gradients.iter())?.into_any()),
    };
    let inputs = arrays(py, tensors.iter())?;
    let out = out.as_ref().map(Some);
    let (found, _) = compute(py, kind, &arguments, &inputs, out, 1.0, None)?;
    let data = scalar_data(torch, &value, usual.dtype)?
        .ok_or_else(|| PyTypeError::new_err("the value of a loss was given other memory"))?;
    // SAFETY: a tensor of this dtype without dimensions, which nobody else has, so that it has one
    // element, and no Python code has run since its description.
    unsafe {
        if usual.dtype == Dtype::F32 {
            data.cast::<f32>().write(found as f32);
        } else {
            data.cast::<f64>().write(found);
        }
    }
    Ok(Some((value, (!gradients.is_empty()).then_some(gradients))))
}

/// Returns the address of the element of a tensor without dimensions, and `None` for others.
fn scalar_data(torch: &Torch, value: &Bound<'_, PyAny>, dtype: Dtype) -> PyResult<Option<*mut u8>> {
    let mut scratch = Scratch::default();
    let seen = torch.try_describe(value, &mut scratch)?;
    let is_scalar =
        |seen: &Seen<'_>| seen.dtype == dtype && seen.shape.is_empty() && dtype.aligns(seen.data);
    Ok(seen.filter(is_scalar).map(|seen| seen.data))
}

/// Returns whether an argument of a loss is None, or exactly a float, string, integer or bool.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
}

/// What a usual call needs of its tensors.
struct Usual {
    /// The dtype of the first one.
    dtype: Dtype,
    requires_gradient: bool,
}

/// Returns `None` if a tensor cannot be used as it is.
fn usual(
    torch: &Torch,
    signature: &Signature,
    tensors: &Bound<'_, PyTuple>,
    signs: &[i8],
) -> PyResult<Option<Usual>> {
    let mut scratch = Scratch::default();
    let (mut first, mut requires_gradient) = (None, false);
    if signs.len() != tensors.len() {
        return Ok(None);
    }
    for (tensor, &sign) in tensors.iter().zip(signs) {
        let Some(seen) = torch.try_describe(&tensor, &mut scratch)? else {
            return Ok(None);
        };
        let dtype = seen.dtype;
        let first = *first.get_or_insert(dtype);
        let fits = match (signature.shape, sign) {
            (InputShape::Any, _) | (_, 1 | -1) => dtype == first,
            (InputShape::Scores, _) => dtype == Dtype::I64,
            (InputShape::Vectors, _) => dtype == Dtype::I64 || dtype == first,
        };
        let is_array = dtype.aligns(seen.data) && strided::is_c_order(seen.shape, seen.strides);
        let is_flat = seen.shape.len() <= 2 || signature.shape == InputShape::Any;
        if !(fits && is_array && is_flat && matches!(first, Dtype::F32 | Dtype::F64)) {
            return Ok(None);
        }
        let py = tensor.py();
        if tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()? {
            return Ok(None);
        }
        if torch.requires_grad(&tensor)? {
            if sign == 0 {
                return Ok(None);
            }
            requires_gradient = true;
        }
    }
    Ok(first.map(|dtype| Usual {
        dtype,
        requires_gradient,
    }))
}

fn array<'py>(tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let array = ForeignArray::new(tensor.clone().unbind(), false);
    Ok(Bound::new(tensor.py(), array)?.into_any())
}

fn arrays<'py>(
    py: Python<'py>,
    tensors: impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let arrays: Vec<_> = tensors.map(|x| array(&x)).collect::<PyResult<_>>()?;
    PyTuple::new(py, arrays)
}

/// Returns an uninitialized tensor of the same dtype and shape. A large one is in huge pages:
/// cross-entropy of 1024 x 32000, forward and backward on Sapphire Rapids with two threads, takes
/// 57 ms with them, and 100 ms without.
#[pyfunction]
fn gradient_like<'py>(tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let torch = torch(tensor.py())?;
    let new = torch.empty_like(tensor)?;
    let mut scratch = Scratch::default();
    if let Some(form) = torch
        .try_describe(&new, &mut scratch)?
        .map(|seen| seen.form())
    {
        let bytes = form.len().saturating_mul(form.dtype.size());
        if bytes > RECYCLED {
            request_huge_pages(form.data.0, bytes);
        }
    }
    Ok(new)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(tensor_loss, module)?)?;
    module.add_function(wrap_pyfunction!(gradient_like, module)?)
}
