//! The gradients and the additional outputs of a step.

use std::collections::HashSet;
use std::ops::Range;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use super::TensorSet;
use super::plan::{has_order, stage};
use crate::memory::inflight::Accessed;
use crate::memory::numpy::{Dtype, Memory};
use crate::memory::strided::Staged;
use crate::memory::tensor::Form;
use crate::optim::gradients::{Gradients, dtypes};
use crate::optim::outputs::Outputs;

/// The copies of a step, and the address ranges of the copied tensors.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) staged: Vec<Staged>,
    pub(super) read: Vec<Range<usize>>,
    pub(super) written: Vec<Range<usize>>,
}

/// The tensors without the negative bit, as far as this call has asked PyTorch.
#[derive(Default)]
pub(super) struct Signs {
    known: HashSet<usize>,
    asked: bool,
}

impl Signs {
    /// Returns whether PyTorch was asked since the last call of this function.
    pub(super) fn asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Returns whether a tensor has the negative bit: its values are the negatives of its memory.
    fn is_negative(&mut self, tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
        if self.known.contains(&tensor.as_ptr().addr()) {
            return Ok(false);
        }
        self.asked = true;
        let negative = tensor
            .call_method0(intern!(tensor.py(), "is_neg"))?
            .is_truthy()?;
        if !negative {
            self.known.insert(tensor.as_ptr().addr());
        }
        Ok(negative)
    }
}

/// How a step uses a tensor.
#[derive(Clone, Copy)]
struct Use {
    read: bool,
    written: bool,
}

impl TensorSet {
    /// Checks each gradient against its parameter. The result holds references to the gradients.
    pub(super) fn gradients<'py>(
        &mut self,
        grads: &[Option<Bound<'py, PyAny>>],
        written: bool,
        copies: &mut Copies,
        signs: &mut Signs,
    ) -> PyResult<Gradients<'py>> {
        let mut arrays = Vec::with_capacity(grads.len());
        for (index, grad) in grads.iter().enumerate() {
            let Some(grad) = grad else {
                arrays.push(None);
                continue;
            };
            let dtype = self.set.parameters[index].layout.dtype;
            let usage = Use {
                read: true,
                written,
            };
            arrays.push(Some(self.memory(
                index,
                "grads",
                grad,
                dtypes(dtype),
                usage,
                copies,
                signs,
            )?));
        }
        Ok(Gradients {
            arrays,
            flat: false,
        })
    }

    /// Checks the targets of the moving average and of the copy.
    pub(super) fn outputs<'py>(
        &mut self,
        average: Option<&(Vec<Bound<'py, PyAny>>, f64)>,
        copy: Option<&[Bound<'py, PyAny>]>,
        zero_grad: bool,
        copies: &mut Copies,
        signs: &mut Signs,
    ) -> PyResult<Outputs<'py>> {
        let mut all = |what: &str, tensors: &[Bound<'py, PyAny>], read, half| {
            let count = self.plans.len();
            if tensors.len() != count {
                return Err(PyValueError::new_err(format!(
                    "{what} has {} tensors for {count} parameters",
                    tensors.len()
                )));
            }
            let mut found = Vec::with_capacity(count);
            for (index, tensor) in tensors.iter().enumerate() {
                let arithmetic = [self.set.parameters[index].layout.dtype.arithmetic()];
                let dtypes = if half {
                    &[Dtype::BF16, Dtype::F16][..]
                } else {
                    &arithmetic
                };
                let usage = Use {
                    read,
                    written: true,
                };
                found.push(self.memory(index, what, tensor, dtypes, usage, copies, signs)?);
            }
            Ok(found)
        };
        let average = match average {
            Some((tensors, weight)) => Some((all("ema", tensors, true, false)?, *weight)),
            None => None,
        };
        let copy = copy
            .map(|tensors| all("copy_to", tensors, false, true))
            .transpose()?;
        Ok(Outputs::of(average, copy, zero_grad))
    }

    /// Returns the memory of a tensor with the shape of a parameter, in the order of the parameter.
    #[expect(clippy::too_many_arguments)]
    fn memory<'py>(
        &mut self,
        index: usize,
        what: &str,
        tensor: &Bound<'py, PyAny>,
        dtypes: &[Dtype],
        usage: Use,
        copies: &mut Copies,
        signs: &mut Signs,
    ) -> PyResult<Memory<'py>> {
        let label = |set: &Self| format!("{what}[{:?}]", set.set.parameters[index].name);
        let Some(seen) = self.torch.see(tensor, &mut self.scratch) else {
            return Err(self.torch.refusal(&label(self), tensor));
        };
        let layout = &self.set.parameters[index].layout;
        let plan = &self.plans[index];
        let single = layout.len == 1;
        let same = plan.order.iter().eq(seen.strides) && seen.dtype.aligns(seen.data);
        let fits = dtypes.contains(&seen.dtype)
            && layout.shape.len() == seen.shape.len()
            && layout
                .shape
                .iter()
                .zip(seen.shape)
                .all(|(&own, &dim)| own as i64 == dim);
        if fits && same && !single {
            let (data, dtype) = (crate::memory::numpy::Address(seen.data), seen.dtype);
            return Ok(Memory::of(tensor.clone(), data, layout.len, dtype));
        }
        let form = seen.form();
        if !dtypes.contains(&form.dtype) {
            return Err(PyTypeError::new_err(format!(
                "{} must be {} as its parameter is, got {}",
                label(self),
                dtypes[0],
                form.dtype
            )));
        }
        if form.shape != layout.shape {
            return Err(PyValueError::new_err(format!(
                "{} must have the shape {:?} of its parameter, got {:?}",
                label(self),
                layout.shape,
                form.shape
            )));
        }
        if signs.is_negative(tensor)? {
            return Err(PyValueError::new_err(format!(
                "{} stands for the negative of its memory; its resolve_neg() does not",
                label(self)
            )));
        }
        Ok(self.in_order(index, tensor, &form, usage, copies))
    }

    /// Returns the memory of a tensor, or of a copy if its order differs.
    fn in_order<'py>(
        &self,
        index: usize,
        tensor: &Bound<'py, PyAny>,
        form: &Form,
        usage: Use,
        copies: &mut Copies,
    ) -> Memory<'py> {
        let order = &self.plans[index].order;
        let mut data = form.data;
        if !has_order(form, &form.shape, order) {
            let mut copy = stage(form, order);
            (copy.read, copy.written) = (usage.read, usage.written);
            data = copy.copy();
            let ranges = if usage.written {
                &mut copies.written
            } else {
                &mut copies.read
            };
            ranges.extend(copy.ranges());
            copies.staged.push(copy);
        }
        Memory::of(tensor.clone(), data, form.len(), form.dtype)
    }

    /// Returns all memory that a step writes and reads, if written memory is not shared.
    pub(super) fn disjoint(
        &mut self,
        gradients: &Gradients<'_>,
        outputs: &Outputs<'_>,
        copies: &mut Copies,
    ) -> PyResult<Accessed> {
        let written = self.set.written();
        if !outputs.is_empty() || !copies.staged.is_empty() {
            return outputs.disjoint(&written, gradients, [&copies.written, &copies.read]);
        }
        let read = self.set.read(gradients, &written)?;
        Ok((written, read))
    }
}
