//! The outputs of a step besides the parameters and their state.

use std::ops::Range;

use fastoptim::numeric::float::Float;
use fastoptim::step::Epilogue;
use fastoptim::storage::Rounding;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::gradients::Gradients;
use crate::memory::inflight::Accessed;
use crate::memory::items::Items;
use crate::memory::numpy::{Address, Dtype, Layout, Memory, check_disjoint, matching};
use crate::memory::view;
use crate::optim::parameter::Parameter;

/// The arrays that a step writes besides the parameters and their state.
pub(super) struct Outputs<'py> {
    /// The moving averages and their weight.
    average: Option<(Vec<Memory<'py>>, f64)>,
    copy: Option<Vec<Memory<'py>>>,
    pub(super) clear_gradients: bool,
}

impl<'py> Outputs<'py> {
    pub(super) fn new(
        parameters: &[Parameter],
        average: Option<&(Items<Bound<'py, PyAny>>, f64)>,
        copy: Option<&[Bound<'py, PyAny>]>,
        clear_gradients: bool,
    ) -> PyResult<Self> {
        let all = |what: &str, arrays: &[Bound<'py, PyAny>], dtypes: fn(Dtype) -> Vec<Dtype>| {
            if arrays.len() != parameters.len() {
                return Err(PyValueError::new_err(format!(
                    "{what} has {} arrays for {} parameters",
                    arrays.len(),
                    parameters.len()
                )));
            }
            let output = |(parameter, array): (&Parameter, &Bound<'py, PyAny>)| {
                let name = || format!("{what}[{:?}]", parameter.name);
                let Layout { dtype, shape, .. } = &parameter.layout;
                let memory = matching(name, array.clone(), &dtypes(*dtype), shape)?;
                if memory.writable {
                    Ok(memory)
                } else {
                    Err(PyValueError::new_err(format!("{} is read-only", name())))
                }
            };
            parameters.iter().zip(arrays).map(output).collect()
        };
        let average = average
            .map(|(arrays, weight)| {
                Ok::<_, PyErr>((all("ema", arrays, |d| vec![d.arithmetic()])?, *weight))
            })
            .transpose()?;
        let halves = |_| vec![Dtype::BF16, Dtype::F16];
        let copy = copy
            .map(|arrays| all("copy_to", arrays, halves))
            .transpose()?;
        Ok(Self {
            average,
            copy,
            clear_gradients,
        })
    }

    /// Creates the outputs from checked targets.
    pub(super) fn of(
        average: Option<(Vec<Memory<'py>>, f64)>,
        copy: Option<Vec<Memory<'py>>>,
        clear_gradients: bool,
    ) -> Self {
        Self {
            average,
            copy,
            clear_gradients,
        }
    }

    /// Returns whether there are no outputs.
    pub(super) fn is_empty(&self) -> bool {
        self.average.is_none() && self.copy.is_none() && !self.clear_gradients
    }

    /// Returns all memory that a step writes and reads, if written memory is not shared. `others`
    /// are the ranges that are written and read in addition, by their copies.
    pub(super) fn disjoint(
        &self,
        written: &[Range<usize>],
        gradients: &Gradients<'_>,
        others: [&[Range<usize>]; 2],
    ) -> PyResult<Accessed> {
        let mut writes: Vec<(&str, Range<usize>)> = Vec::new();
        writes.extend(others[0].iter().map(|range| ("outputs", range.clone())));
        writes.extend(written.iter().map(|range| ("params", range.clone())));
        let averages = self.average.iter().flat_map(|(arrays, _)| arrays);
        writes.extend(averages.map(|memory| ("ema", memory.range())));
        let copies = self.copy.iter().flatten();
        writes.extend(copies.map(|memory| ("copy_to", memory.range())));
        let grads = gradients.arrays.iter().flatten();
        let grads = grads.map(|memory| ("grads", memory.range()));
        let others = others[1].iter().map(|range| ("grads", range.clone()));
        let mut reads: Vec<(&str, Range<usize>)> = others.collect();
        if self.clear_gradients {
            writes.extend(grads);
        } else {
            reads.extend(grads);
        }
        check_disjoint(&writes, &reads)?;
        let range = |(_, range): (&str, Range<usize>)| range;
        Ok((
            writes.into_iter().map(range).collect(),
            reads.into_iter().map(range).collect(),
        ))
    }

    /// Returns the epilogue of the part of one parameter. With `iterate`, the outputs receive the
    /// averaged iterate of schedule-free parameters.
    ///
    /// # Safety
    /// `self` outlives `'a`, and no other code accesses the arrays during `'a`.
    pub(super) unsafe fn epilogue<'a, T: Float>(
        &self,
        index: usize,
        parameter: &Parameter,
        iterate: Option<f64>,
    ) -> Epilogue<'a, T> {
        let (start, len) = (parameter.start(), parameter.part_len());
        let output = |memory: &Memory<'_>| {
            let from = memory.data.0.wrapping_add(start * memory.dtype.size());
            // SAFETY: `matching` found as many aligned elements of this dtype as the parameter has,
            // of which these are a part, and `memory` holds their array. By this function's
            // contract it outlives `'a`, and no other code accesses them.
            unsafe { view::written(memory.dtype, Address(from), len, || Rounding::Nearest) }
        };
        let average = self.average.as_ref();
        Epilogue {
            average: average.map(|(arrays, weight)| (output(&arrays[index]), *weight)),
            copy: self.copy.as_ref().map(|arrays| output(&arrays[index])),
            iterate,
            clear_gradient: self.clear_gradients,
        }
    }
}
