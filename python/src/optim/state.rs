//! The state of the parameters: its arrays, their allocation, and copies.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use fastoptim::optim::{Method, StateSpec};
use fastoptim::storage::BLOCK;
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PySlice};

use super::parameter_set::ParameterSet;
use crate::memory::inflight::{self, Ranges};
use crate::memory::items::Items;
use crate::memory::numpy::{Dtype, Layout};
use crate::memory::slab::Slab;
use crate::memory::view;
use crate::optim::group::Group;
use crate::optim::parameter::{Parameter, Piece, Slot, Storage};

/// A copy of the state of one parameter: its steps, its scalars and its arrays by name.
pub(super) type Saved<'py> = (
    u64,
    Vec<(&'static str, f64)>,
    Vec<(String, Bound<'py, PyAny>)>,
);

/// The valid state of one parameter: its scalars with their initial values, and its arrays with
/// dtype, shape, whether a step needs them, and whether they are never negative.
pub(super) type Expected = (
    Vec<(&'static str, f64)>,
    Vec<(String, String, Vec<usize>, bool, bool)>,
);

/// The state of one parameter to restore.
pub(super) type Restored<'py> = (u64, Items<f64>, HashMap<String, Bound<'py, PyAny>>);

/// Returns the name of the scales of a state array.
fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

/// One array to be allocated. Arrays with the same label and dtype share a slab.
struct Wanted {
    label: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Wanted {
    fn bytes(&self) -> Option<usize> {
        let dims = self.shape.iter();
        dims.copied()
            .try_fold(self.dtype.size(), usize::checked_mul)
    }
}

/// Allocates zeros.
fn zeros(py: Python<'_>, wanted: &[Wanted]) -> PyResult<Vec<Piece>> {
    let key = |index: usize| (&wanted[index].label, wanted[index].dtype.to_string());
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    // The sort is stable, so parameters keep their order in a slab.
    order.sort_by_key(|&index| key(index));
    let mut pieces: Vec<Option<Piece>> = wanted.iter().map(|_| None).collect();
    for run in order.chunk_by(|&a, &b| key(a) == key(b)) {
        let refuse = || PyMemoryError::new_err(format!("cannot allocate {}", wanted[run[0]].label));
        let (mut total, mut offsets) = (0, Vec::with_capacity(run.len()));
        for &index in run {
            offsets.push(total);
            let bytes = wanted[index].bytes();
            let end = bytes.and_then(|bytes| bytes.checked_add(total));
            total = end.ok_or_else(refuse)?;
        }
        let slab = Bound::new(py, Slab::zeros(total)?)?;
        for (&index, offset) in run.iter().zip(offsets) {
            let Wanted { dtype, shape, .. } = &wanted[index];
            pieces[index] = Some(Piece::new(&slab, offset, *dtype, shape));
        }
    }
    Ok(pieces.into_iter().flatten().collect())
}

impl ParameterSet {
    /// Allocates the missing state arrays that the hyperparameters require, all or none, and
    /// returns them. Most state arrays cannot be added after the first step: the maximum of AMSGrad
    /// would lack the earlier values.
    pub(super) fn allocate(
        &mut self,
        py: Python<'_>,
    ) -> PyResult<Vec<(usize, &'static StateSpec)>> {
        let mut missing = Vec::new();
        if self.allocated {
            return Ok(missing);
        }
        for (index, parameter) in self.parameters.iter().enumerate() {
            let method = &self.groups[parameter.group].method;
            for spec in method.state(parameter.layout.shape.len()) {
                if parameter.slot(spec.name).is_some() {
                    continue;
                }
                if parameter.progress.steps > 0 && !spec.late_start {
                    return Err(PyValueError::new_err(format!(
                        "{} of parameter {:?} cannot start after its first step",
                        spec.name, parameter.name
                    )));
                }
                missing.push((index, spec));
            }
        }
        self.add_slots(py, &missing)?;
        self.allocated = true;
        Ok(missing)
    }

    /// Removes the state arrays that `allocate` added.
    pub(super) fn rollback(&mut self, added: &[(usize, &'static StateSpec)]) {
        for (index, spec) in added {
            let slots = &mut self.parameters[*index].slots;
            slots.retain(|slot| slot.spec.name != spec.name);
        }
        if !added.is_empty() {
            self.reset();
        }
    }

    /// Allocates state arrays of parameters by their index.
    fn add_slots(
        &mut self,
        py: Python<'_>,
        missing: &[(usize, &'static StateSpec)],
    ) -> PyResult<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (index, spec) in missing {
            let parameter = &self.parameters[*index];
            let layout = &parameter.layout;
            let method = &self.groups[parameter.group].method;
            let shape = method.state_shape(spec.name, parameter.part_shape());
            let dtype = self.storage.of(spec, layout.dtype);
            let scales = scales(dtype, &shape);
            wanted.push(Wanted {
                label: spec.name.to_owned(),
                dtype,
                shape,
            });
            if let Some(scales) = scales {
                wanted.push(Wanted {
                    label: scale_name(spec.name),
                    dtype: Dtype::F32,
                    shape: vec![scales],
                });
            }
        }
        let mut pieces = zeros(py, &wanted)?.into_iter();
        for &(index, spec) in missing {
            let Some(numbers) = pieces.next() else {
                break;
            };
            let scales = scales(numbers.dtype, &numbers.shape).and_then(|_| pieces.next());
            self.parameters[index].slots.push(Slot {
                spec,
                numbers,
                scales: scales.map(Box::new),
                started: false,
            });
        }
        self.reset();
        Ok(())
    }

    /// Allocates the state arrays that the hyperparameters ask for and those of a restored state.
    pub(super) fn allocate_restored(
        &mut self,
        py: Python<'_>,
        state: &[Restored<'_>],
    ) -> PyResult<()> {
        let mut missing = Vec::new();
        for (index, (parameter, (_, _, arrays))) in self.parameters.iter().zip(state).enumerate() {
            let method = &self.groups[parameter.group].method;
            let needed = method.state(parameter.layout.shape.len());
            let others = method.optional_state();
            let given =
                |spec: &&StateSpec| arrays.contains_key(spec.name) && !needed.contains(spec);
            let specs = needed.iter().chain(others.iter().filter(given));
            let absent = specs.filter(|spec| parameter.slot(spec.name).is_none());
            missing.extend(absent.map(|spec| (index, spec)));
        }
        self.add_slots(py, &missing)
    }

    /// Returns all memory that every step writes, sorted by address.
    pub(super) fn written(&self) -> Ranges {
        let make = || {
            let mut ranges: Vec<Range<usize>> = Vec::with_capacity(self.parameters.len());
            for parameter in &self.parameters {
                ranges.extend(parameter.slots.iter().flat_map(Slot::ranges));
                ranges.push(parameter.layout.range());
            }
            ranges.retain(|range| !range.is_empty());
            ranges.sort_unstable_by_key(|range| range.start);
            // The ranges do not overlap. Adjacent ones are merged.
            ranges.dedup_by(|next, last| {
                let touch = last.end == next.start;
                if touch {
                    last.end = next.end;
                }
                touch
            });
            ranges.into()
        };
        Arc::clone(self.written.get_or_init(make))
    }

    /// Returns views of the state arrays of one parameter by name, each with whether it has been
    /// written.
    pub(super) fn views<'py>(
        py: Python<'py>,
        parameter: &Parameter,
    ) -> PyResult<Vec<(String, Bound<'py, PyAny>, bool)>> {
        let mut views = Vec::new();
        for slot in &parameter.slots {
            let mut add = |name, piece: &Piece| {
                views.push((name, piece.view(py)?.into_any(), slot.started));
                Ok::<_, PyErr>(())
            };
            add(slot.spec.name.to_owned(), &slot.numbers)?;
            if let Some(scales) = &slot.scales {
                add(scale_name(slot.spec.name), scales)?;
            }
        }
        Ok(views)
    }

    /// Returns the scalars in the state of one parameter, not counting its step.
    pub(super) fn numbers(&self, parameter: &Parameter) -> Vec<(&'static str, f64)> {
        let names = self.groups[parameter.group].method.scalars();
        let pairs = names.iter().zip(parameter.progress.scalars);
        pairs.map(|((name, _), x)| (*name, x)).collect()
    }

    /// Returns the state of all parameters with views of the arrays, or `None` for parameters
    /// without a step.
    pub(super) fn saved<'py>(&self, py: Python<'py>) -> PyResult<Vec<Option<Saved<'py>>>> {
        let save = |parameter: &Parameter| {
            let views = Self::views(py, parameter)?.into_iter();
            let started = views.filter(|(.., started)| *started);
            let arrays: Vec<_> = started.map(|(name, view, _)| (name, view)).collect();
            let scalars = self.numbers(parameter);
            let initial = self.groups[parameter.group].method.scalars();
            let touched = parameter.progress.steps > 0 || !arrays.is_empty() || scalars != initial;
            Ok(touched.then_some((parameter.progress.steps, scalars, arrays)))
        };
        self.parameters.iter().map(save).collect()
    }

    /// Returns the valid state of each parameter with other groups.
    pub(super) fn expect(&self, groups: &[Group]) -> Vec<Expected> {
        let expect = |parameter: &Parameter| {
            let Layout { dtype, shape, .. } = &parameter.layout;
            expected(
                &self.storage,
                &groups[parameter.group].method,
                *dtype,
                shape,
            )
        };
        self.parameters.iter().map(expect).collect()
    }

    /// Restores groups and a state that conforms to `expect`. State arrays that are not given are
    /// set to zeros. The arrays are those of whole parameters.
    pub(super) fn restore(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        state: &[Restored<'_>],
        steps: u64,
    ) -> PyResult<()> {
        if state.len() != self.parameters.len() {
            return Err(PyValueError::new_err(format!(
                "state of {} parameters for {}",
                state.len(),
                self.parameters.len()
            )));
        }
        let _guard = inflight::register(self.written(), Vec::new())?;
        let before = std::mem::replace(&mut self.steps, steps);
        let ready = self
            .read_groups(groups)
            .and_then(|()| self.allocate_restored(py, state))
            .and_then(|()| self.assignments(py, state));
        let assignments = match ready {
            Ok(assignments) => assignments,
            Err(error) => {
                self.steps = before;
                return Err(error);
            }
        };
        self.reset();
        for (parameter, (step, scalars, arrays)) in self.parameters.iter_mut().zip(state) {
            parameter.progress.steps = *step;
            for (own, new) in parameter.progress.scalars.iter_mut().zip(scalars.iter()) {
                *own = *new;
            }
            for slot in &mut parameter.slots {
                slot.started = arrays.contains_key(slot.spec.name);
            }
        }
        for (view, value) in assignments {
            view.set_item(py.Ellipsis(), value)?;
        }
        Ok(())
    }

    /// Views of all state arrays, each with the array that a restored state has for it, or 0.
    fn assignments<'py>(
        &self,
        py: Python<'py>,
        state: &[Restored<'py>],
    ) -> PyResult<Vec<(Bound<'py, PyUntypedArray>, Bound<'py, PyAny>)>> {
        let mut assignments = Vec::new();
        for (parameter, (_, _, arrays)) in self.parameters.iter().zip(state) {
            for slot in &parameter.slots {
                let numbers = (slot.spec.name.to_owned(), &slot.numbers);
                let scales = slot.scales.as_deref().into_iter();
                let scales = scales.map(|piece| (scale_name(slot.spec.name), piece));
                for (name, piece) in std::iter::once(numbers).chain(scales) {
                    let value = match arrays.get(&name) {
                        Some(given) => fitting(piece, &name, &part_of(parameter, piece, given)?)?,
                        None => 0u8.into_pyobject(py)?.into_any(),
                    };
                    assignments.push((piece.view(py)?, value));
                }
            }
        }
        Ok(assignments)
    }
}

/// Returns the part of a state array of a whole parameter that this process has. It ends where the
/// array ends, or at the next part.
fn part_of<'py>(
    parameter: &Parameter,
    piece: &Piece,
    given: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(part) = &parameter.part else {
        return Ok(given.clone());
    };
    if part.shape == parameter.layout.shape {
        return Ok(given.clone());
    }
    // One scale stands for a block of elements.
    let len = given.cast::<PyUntypedArray>()?.len();
    let one_of = if len == parameter.layout.len {
        1
    } else {
        BLOCK
    };
    let start = if piece.len == 0 {
        0
    } else {
        part.start / one_of
    };
    let all = PySlice::new(
        given.py(),
        start.try_into()?,
        (start + piece.len).try_into()?,
        1,
    );
    let flat = given.call_method1("reshape", (-1,))?;
    let own = flat.get_item(all)?;
    own.call_method1("reshape", (piece.shape.clone(),))
}

/// The array that is to be copied into a piece, if it has its dtype and shape.
fn fitting<'py>(
    piece: &Piece,
    name: &str,
    given: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let array = given.cast::<PyUntypedArray>()?;
    if Dtype::of(&array.dtype()) == Some(piece.dtype) && array.shape() == piece.shape {
        return Ok(given.clone());
    }
    Err(PyValueError::new_err(format!(
        "{name} must be {} of shape {:?}, got {} of shape {:?}",
        piece.dtype,
        piece.shape,
        array.dtype(),
        array.shape()
    )))
}

/// Returns the number of scales of an array of this dtype and shape, or `None` without scales.
fn scales(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let encoding = view::encoding(dtype);
    let count = encoding.scales(shape.iter().product());
    encoding.is_scaled().then_some(count)
}

/// Returns the state that a parameter of this dtype and shape may have with a method.
pub(super) fn expected(
    storage: &Storage,
    method: &Method,
    dtype: Dtype,
    shape: &[usize],
) -> Expected {
    let specs = method.state(shape.len());
    let others = method.optional_state();
    let others = others.iter().filter(|spec| !specs.contains(spec));
    let all = specs.iter().map(|spec| (spec, !spec.late_start));
    let mut arrays = Vec::new();
    for (spec, needed) in all.chain(others.map(|spec| (spec, false))) {
        let shape = method.state_shape(spec.name, shape);
        let dtype = storage.of(spec, dtype);
        let scales = scales(dtype, &shape);
        let name = spec.name.to_owned();
        arrays.push((name, dtype.to_string(), shape, needed, spec.non_negative));
        if let Some(scales) = scales {
            let (name, dtype) = (scale_name(spec.name), Dtype::F32.to_string());
            arrays.push((name, dtype, vec![scales], needed, true));
        }
    }
    (method.scalars(), arrays)
}
