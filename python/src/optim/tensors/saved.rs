//! Saved state: the expected entries, and conversions of 8-bit codes.

use fastoptim::exec::{environment, isa};
use fastoptim::storage::{self, Encoding, Rounding};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::TensorSet;
use crate::memory::numpy::{Dtype, with_float};
use crate::memory::tensor::Form;
use crate::optim::parameter::slice_mut;
use crate::optim::state::{Expected, expected};

impl TensorSet {
    /// Returns the state that parameters of these groups may have. Each parameter is given as
    /// group, dtype and shape.
    pub(super) fn expected(
        &self,
        groups: &Bound<'_, PyList>,
        parameters: &[(usize, String, Vec<usize>)],
    ) -> PyResult<Vec<Expected>> {
        let read = |group| self.set.keys.read(&group, self.set.steps);
        let groups = groups.iter().map(read).collect::<PyResult<Vec<_>>>()?;
        let one = |(group, dtype, shape): &(usize, String, Vec<usize>)| {
            let known = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16];
            let dtype = known.into_iter().find(|known| known.to_string() == *dtype);
            let group = groups.get(*group);
            let (Some(dtype), Some(group)) = (dtype, group) else {
                return Err(PyTypeError::new_err(
                    "parameters must be of a dtype of numbers",
                ));
            };
            Ok(expected(&self.set.storage, &group.method, dtype, shape))
        };
        parameters.iter().map(one).collect()
    }

    /// Decodes 8-bit codes into `out`.
    pub(super) fn decode(
        &mut self,
        codes: &Bound<'_, PyAny>,
        scales: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let forms = [self.form(codes)?, self.form(scales)?, self.form(out)?];
        let [codes, scales, out] = &forms;
        check(codes, scales, out)?;
        let tier = isa::current();
        environment::standard(|| {
            with_float!(out.dtype, T => {
                // SAFETY: the caller holds tensors of these dtypes and lengths, and `check` found
                // their elements aligned and without gaps. No Python code runs, and the interpreter
                // stays attached, so no other code accesses them.
                unsafe {
                    let scales = slice_mut::<f32>(scales.data, scales.len());
                    let to = slice_mut::<T>(out.data, out.len());
                    if codes.dtype == Dtype::I8 {
                        storage::load_signed(slice_mut(codes.data, codes.len()), scales, to, tier);
                    } else {
                        storage::load_squares(slice_mut(codes.data, codes.len()), scales, to, tier);
                    }
                }
            })
        });
        Ok(())
    }

    /// Encodes numbers as 8-bit codes and scales.
    pub(super) fn encode(
        &mut self,
        numbers: &Bound<'_, PyAny>,
        codes: &Bound<'_, PyAny>,
        scales: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let forms = [self.form(codes)?, self.form(scales)?, self.form(numbers)?];
        let [codes, scales, numbers] = &forms;
        check(codes, scales, numbers)?;
        let tier = isa::current();
        environment::standard(|| {
            with_float!(numbers.dtype, T => {
                // SAFETY: as in `decode`.
                unsafe {
                    let scales = slice_mut::<f32>(scales.data, scales.len());
                    let from = slice_mut::<T>(numbers.data, numbers.len());
                    let nearest = Rounding::Nearest;
                    if codes.dtype == Dtype::I8 {
                        let to = slice_mut(codes.data, codes.len());
                        storage::store_signed(from, to, scales, nearest, tier);
                    } else {
                        let to = slice_mut(codes.data, codes.len());
                        storage::store_squares(from, to, scales, nearest, tier);
                    }
                }
            })
        });
        Ok(())
    }

    fn form(&mut self, tensor: &Bound<'_, PyAny>) -> PyResult<Form> {
        let seen = self
            .torch
            .see(tensor, &mut self.scratch)
            .map(|seen| seen.form());
        seen.ok_or_else(|| self.torch.refusal("state", tensor))
    }
}

/// Rejects codes, scales and numbers whose dtypes or sizes do not match.
fn check(codes: &Form, scales: &Form, numbers: &Form) -> PyResult<()> {
    let encoding = match codes.dtype {
        Dtype::I8 => Encoding::Signed,
        Dtype::U8 => Encoding::Squares,
        _ => return Err(PyTypeError::new_err("codes must be int8 or uint8")),
    };
    let fits = scales.dtype == Dtype::F32
        && matches!(numbers.dtype, Dtype::F32 | Dtype::F64)
        && scales.len() == encoding.scales(codes.len())
        && codes.len() == numbers.len()
        && [codes, scales, numbers].iter().all(|form| form.is_dense());
    if fits {
        return Ok(());
    }
    Err(PyValueError::new_err(
        "codes, scales and numbers do not belong to one another",
    ))
}
