//! The gradients of a step, checked against their parameters.

use std::ops::Range;
use std::sync::Arc;

use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::parameter_set::ParameterSet;
use crate::memory::inflight::Ranges;
use crate::memory::items::Items;
use crate::memory::numpy::{Dtype, Layout, Memory, matching};
use crate::optim::parameter::{Parameter, slice_mut};

/// The gradients in the order of the parameters.
pub(super) struct Gradients<'py> {
    pub(super) arrays: Vec<Option<Memory<'py>>>,
    /// Whether they are one array.
    pub(super) flat: bool,
}

impl Gradients<'_> {
    /// Sets all gradients to 0.
    ///
    /// # Safety
    /// They are writable, and no other code accesses their memory.
    pub(super) unsafe fn clear(&self, py: Python<'_>) {
        let bytes = |memory: &Memory<'_>| (memory.data, memory.len * memory.dtype.size());
        let all: Vec<_> = self.arrays.iter().flatten().map(bytes).collect();
        py.detach(|| {
            for (data, len) in all {
                // SAFETY: `self` holds the arrays. The rest is this function's contract. Arrays
                // that share memory are written one after the other.
                unsafe { slice_mut::<u8>(data, len) }.fill(0);
            }
        });
    }
}

/// Ranges that were found to share no memory with `written`. Only ranges that differ from these are
/// searched for.
#[derive(Default)]
pub(super) struct Apart {
    written: Option<Ranges>,
    read: Vec<Range<usize>>,
}

impl Apart {
    /// Checks that no range that is read overlaps a range of `written`, which are sorted. Returns
    /// the first shared address as an error.
    pub(super) fn check(&mut self, read: &[Range<usize>], written: &Ranges) -> Result<(), usize> {
        let same = |known: &Ranges| Arc::ptr_eq(known, written);
        if !self.written.as_ref().is_some_and(same) {
            self.written = Some(Arc::clone(written));
            self.read.clear();
        }
        for (index, range) in read.iter().enumerate() {
            if self.read.get(index) == Some(range) {
                continue;
            }
            let next = written.partition_point(|other| other.end <= range.start);
            if next < written.len() && written[next].start < range.end && !range.is_empty() {
                return Err(written[next].start.max(range.start));
            }
            if index < self.read.len() {
                self.read[index] = range.clone();
            } else {
                self.read.push(range.clone());
            }
        }
        Ok(())
    }
}

/// Returns the dtypes of gradients: that of the parameter, and 16-bit formats for float32.
pub(super) fn dtypes(parameter: Dtype) -> &'static [Dtype] {
    match parameter {
        Dtype::F16 => &[Dtype::F16],
        Dtype::BF16 => &[Dtype::BF16],
        Dtype::F64 => &[Dtype::F64],
        _ => &[Dtype::F32, Dtype::BF16, Dtype::F16],
    }
}

impl ParameterSet {
    /// Checks each gradient against its parameter. The result holds references to the arrays.
    pub(super) fn gradients<'py>(&self, grads: &Bound<'py, PyAny>) -> PyResult<Gradients<'py>> {
        let array = grads.cast::<PyUntypedArray>().is_ok();
        if array
            && self.flat
            && let Some(first) = self.parameters.first()
        {
            return self.pieces(grads, first.layout.dtype);
        }
        let count = self.parameters.len();
        let wrong = |found: usize| {
            Err(PyValueError::new_err(format!(
                "grads has {found} arrays for {count} parameters"
            )))
        };
        // A sequence of another length is not iterated over: it may be infinite.
        match if array { Ok(1) } else { grads.len() } {
            Ok(said) if said != count => return wrong(said),
            _ => {}
        }
        let grads = if array {
            vec![grads.clone()]
        } else {
            grads.extract::<Items<Bound<'py, PyAny>>>()?.into()
        };
        let mut arrays = Vec::with_capacity(count);
        for (parameter, grad) in self.parameters.iter().zip(grads) {
            if grad.is_none() {
                arrays.push(None);
                continue;
            }
            parameter.check(grad.py())?;
            let name = || format!("grads[{:?}]", parameter.name);
            let Layout { dtype, shape, .. } = &parameter.layout;
            arrays.push(Some(matching(name, grad, dtypes(*dtype), shape)?));
        }
        Ok(Gradients {
            arrays,
            flat: false,
        })
    }

    /// Returns the gradients of parameters in one buffer of this dtype, as pieces of one array.
    fn pieces<'py>(&self, grads: &Bound<'py, PyAny>, dtype: Dtype) -> PyResult<Gradients<'py>> {
        let len = self.parameters.iter().map(|p| p.layout.len).sum();
        let whole = matching(|| "grads".into(), grads.clone(), dtypes(dtype), &[len])?;
        let mut start = 0;
        let piece = |parameter: &Parameter| {
            parameter.check(grads.py())?;
            let piece = whole.piece(start, parameter.layout.len);
            start += parameter.layout.len;
            Ok(piece)
        };
        let pieces = self.parameters.iter().map(piece);
        Ok(Gradients {
            arrays: pieces.collect::<PyResult<_>>()?,
            flat: true,
        })
    }

    /// Checks the gradients of the parts of this process, as one array if the parameters are those
    /// of one buffer, or as one 1-D array for each parameter that has a gradient.
    pub(super) fn part_gradients<'py>(
        &self,
        parts: &Bound<'py, PyAny>,
        whole: &Gradients<'_>,
    ) -> PyResult<Gradients<'py>> {
        let lens = self.parameters.iter().map(Parameter::part_len);
        if whole.flat {
            let dtype = self.parameters[0].layout.dtype;
            let all = matching(
                || "grads".into(),
                parts.clone(),
                dtypes(dtype),
                &[lens.clone().sum()],
            )?;
            let mut start = 0;
            let piece = |len| {
                start += len;
                all.piece(start - len, len)
            };
            return Ok(Gradients {
                arrays: lens.map(piece).collect(),
                flat: true,
            });
        }
        let parts: Items<Option<Bound<'py, PyAny>>> = parts.extract()?;
        let pairs = parts.iter().zip(&whole.arrays);
        let alike = pairs.filter(|(part, grad)| part.is_some() == grad.is_some());
        if parts.len() != whole.arrays.len() || alike.count() != parts.len() {
            return Err(PyValueError::new_err(
                "parts of other gradients than those given",
            ));
        }
        let mut arrays = Vec::with_capacity(parts.len());
        for ((parameter, part), len) in self.parameters.iter().zip(parts).zip(lens) {
            let name = || format!("grads[{:?}]", parameter.name);
            let dtypes = dtypes(parameter.layout.dtype);
            let part = part.map(|part| matching(name, part, dtypes, &[len]));
            arrays.push(part.transpose()?);
        }
        Ok(Gradients {
            arrays,
            flat: false,
        })
    }

    /// Returns the memory of the gradients that are only read.
    pub(super) fn read(
        &mut self,
        gradients: &Gradients<'_>,
        written: &Ranges,
    ) -> PyResult<Vec<Range<usize>>> {
        let mut read: Vec<Range<usize>> = Vec::with_capacity(gradients.arrays.len());
        for memory in gradients.arrays.iter().flatten() {
            let range = memory.range();
            match read.last_mut() {
                Some(last) if gradients.flat => last.end = range.end,
                _ => read.push(range),
            }
        }
        match self.apart.check(&read, written) {
            Ok(()) => Ok(read),
            Err(address) => Err(self.shared(address, gradients)),
        }
    }

    /// Checks that all gradients are writable.
    pub(super) fn require_writable(&self, gradients: &Gradients<'_>) -> PyResult<()> {
        for (parameter, memory) in self.parameters.iter().zip(&gradients.arrays) {
            if memory.as_ref().is_some_and(|memory| !memory.writable) {
                return Err(PyValueError::new_err(if gradients.flat {
                    "grads is read-only".to_owned()
                } else {
                    format!("grads[{:?}] is read-only", parameter.name)
                }));
            }
        }
        Ok(())
    }

    /// Returns the error that names the arrays that share the memory at an address.
    pub(super) fn shared(&self, start: usize, gradients: &Gradients<'_>) -> PyErr {
        let owner = self.parameters.iter().find_map(|p| {
            if p.layout.range().contains(&start) {
                return Some(format!("params[{:?}]", p.name));
            }
            let has = |range: Range<usize>| range.contains(&start);
            let mut slots = p.slots.iter();
            let slot = slots.find(|slot| slot.ranges().any(has))?;
            Some(format!("{} of {:?}", slot.spec.name, p.name))
        });
        let pairs = self.parameters.iter().zip(&gradients.arrays);
        let grad = pairs.into_iter().find_map(|(p, memory)| {
            let held = memory.as_ref()?.range();
            held.contains(&start)
                .then(|| format!("grads[{:?}]", p.name))
        });
        PyValueError::new_err(format!(
            "{} and {} share memory",
            owner.unwrap_or_else(|| "params".into()),
            grad.unwrap_or_else(|| "grads".into())
        ))
    }
}
