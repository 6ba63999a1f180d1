//! The gradients of a step, checked against the parameters that they belong to.

use std::ops::Range;

use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Engine;
use crate::array::{Address, Dtype, Layout, Memory, matching};
use crate::parameter::Parameter;

/// The gradients in the order of the parameters.
pub(super) struct Gradients {
    pub(super) arrays: Vec<Option<Memory>>,
    /// Whether they are one array.
    pub(super) flat: bool,
}

/// The dtypes that a gradient may have: its parameter's, and 16 bits for a parameter in `f32`.
fn dtypes(parameter: Dtype) -> &'static [Dtype] {
    match parameter {
        Dtype::F16 => &[Dtype::F16],
        Dtype::BF16 => &[Dtype::BF16],
        Dtype::F64 => &[Dtype::F64],
        _ => &[Dtype::F32, Dtype::BF16, Dtype::F16],
    }
}

impl Engine {
    /// The gradients, each checked against its own parameter.
    pub(super) fn gradients(&self, grads: &Bound<'_, PyAny>) -> PyResult<Gradients> {
        let py = grads.py();
        if self.flat
            && let Some(first) = self.parameters.first()
            && let Ok(array) = grads.cast::<PyUntypedArray>()
        {
            let len = self.parameters.iter().map(|p| p.layout.len).sum();
            let dtypes = dtypes(first.layout.dtype);
            let whole = matching(|| "grads".into(), array, dtypes, &[len])?;
            let mut offset = 0;
            let place = |parameter: &Parameter| {
                parameter.check(py)?;
                let data = Address(whole.data.0.wrapping_add(offset));
                let len = parameter.layout.len;
                offset += len * whole.dtype.size();
                Ok(Some(Memory { data, len, ..whole }))
            };
            let places = self.parameters.iter().map(place);
            return Ok(Gradients {
                arrays: places.collect::<PyResult<_>>()?,
                flat: true,
            });
        }
        let grads: Vec<Bound<'_, PyAny>> = grads.extract()?;
        if grads.len() != self.parameters.len() {
            return Err(PyValueError::new_err(format!(
                "grads has {} arrays for {} parameters",
                grads.len(),
                self.parameters.len()
            )));
        }
        let pairs = self.parameters.iter().zip(&grads);
        let gradients = pairs.map(|(parameter, grad)| {
            if grad.is_none() {
                return Ok(None);
            }
            parameter.check(py)?;
            let name = || format!("grads[{:?}]", parameter.name);
            let Layout { dtype, shape, .. } = &parameter.layout;
            matching(name, grad, dtypes(*dtype), shape).map(Some)
        });
        Ok(Gradients {
            arrays: gradients.collect::<PyResult<_>>()?,
            flat: false,
        })
    }

    /// The memory of the gradients, none of which is written.
    pub(super) fn read(
        &self,
        gradients: &Gradients,
        written: &[Range<usize>],
    ) -> PyResult<Vec<Range<usize>>> {
        let mut read: Vec<Range<usize>> = Vec::new();
        for memory in gradients.arrays.iter().flatten() {
            let range = memory.range();
            match read.last_mut() {
                Some(last) if gradients.flat => last.end = range.end,
                _ => read.push(range),
            }
        }
        for range in &read {
            let next = written.partition_point(|other| other.end <= range.start);
            if next < written.len() && written[next].start < range.end && !range.is_empty() {
                return Err(self.shared(&written[next], range, gradients));
            }
        }
        Ok(read)
    }

    /// Refuses gradients that are to be written and cannot be.
    pub(super) fn require_writable(&self, gradients: &Gradients) -> PyResult<()> {
        for (parameter, memory) in self.parameters.iter().zip(&gradients.arrays) {
            if memory.is_some_and(|memory| !memory.writable) {
                return Err(PyValueError::new_err(if gradients.flat {
                    "grads is read-only".to_owned()
                } else {
                    format!("grads[{:?}] is read-only", parameter.name)
                }));
            }
        }
        Ok(())
    }

    /// The error that names what shares memory.
    fn shared(&self, written: &Range<usize>, read: &Range<usize>, gradients: &Gradients) -> PyErr {
        let start = written.start.max(read.start);
        let owner = self.parameters.iter().find_map(|p| {
            if p.layout.range().contains(&start) {
                return Some(format!("params[{:?}]", p.name));
            }
            let has = |range: Range<usize>| range.contains(&start);
            let mut slots = p.slots.iter();
            let slot = slots.find(|slot| slot.ranges().any(has))?;
            Some(format!("{} of {:?}", slot.name, p.name))
        });
        let pairs = self.parameters.iter().zip(&gradients.arrays);
        let grad = pairs.into_iter().find_map(|(p, memory)| {
            let held = (*memory)?.range();
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
