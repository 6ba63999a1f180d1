//! The state of the parameters: what there is, its allocation, and copies of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PySlice, PyTuple};

use super::Engine;
use crate::array::{Address, Array, Dtype};
use crate::group::Group;
use crate::inflight::{self, Ranges};
use crate::parameter::{Parameter, Piece, Slot, scale_count, slab};

/// The state of one parameter as a copy: its steps, its numbers and its arrays by name.
pub(super) type Saved<'py> = (
    u64,
    Vec<(&'static str, f64)>,
    Vec<(String, Bound<'py, PyAny>)>,
);

/// What the state of one parameter may be: its numbers with what they are at first, and its arrays
/// with dtype, shape and whether a step needs them.
pub(super) type Expected = (
    Vec<(&'static str, f64)>,
    Vec<(String, String, Vec<usize>, bool)>,
);

/// The state of one parameter to take over.
pub(super) type Restored<'py> = (u64, Vec<f64>, HashMap<String, Bound<'py, PyAny>>);

/// The name under which the scales of a state array stand.
fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

/// One array to be allocated. Those of one label and dtype come in one slab.
struct Wanted {
    label: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Allocates zeros.
fn allocate(py: Python<'_>, wanted: &[Wanted]) -> PyResult<Vec<Piece>> {
    let key = |index: usize| (&wanted[index].label, wanted[index].dtype.to_string());
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    // The sort is stable, so parameters keep their order in a slab.
    order.sort_by_key(|&index| key(index));
    let mut pieces: Vec<Option<Piece>> = wanted.iter().map(|_| None).collect();
    for run in order.chunk_by(|&a, &b| key(a) == key(b)) {
        let size = |index: usize| wanted[index].shape.iter().product::<usize>();
        let total = run.iter().map(|&index| size(index)).sum();
        let slab = slab(py, total, wanted[run[0]].dtype)?;
        let mut start = 0;
        for &index in run {
            let end = start + size(index);
            let piece = slab.get_item(PySlice::new(py, start as isize, end as isize, 1))?;
            let shape = PyTuple::new(py, &wanted[index].shape)?;
            let view = piece.call_method1("reshape", (shape,))?;
            let array = Array::new(&wanted[index].label, &view)?;
            pieces[index] = Some(Piece {
                data: Address(array.data),
                len: array.len,
                slab: slab.as_ptr().addr(),
                array: array.object.unbind(),
            });
            start = end;
        }
    }
    Ok(pieces.into_iter().flatten().collect())
}

impl Engine {
    /// Allocates what the hyperparameters ask for and the parameters lack, all or nothing, and says
    /// what that was. Most state cannot start late: AMSGrad's maximum would have missed the past.
    pub(super) fn allocate(&mut self, py: Python<'_>) -> PyResult<Vec<(usize, &'static str)>> {
        let mut lacking = Vec::new();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let method = &self.groups[parameter.group].method;
            for &name in method.state(parameter.layout.shape.len()) {
                if parameter.slot(name).is_some() {
                    continue;
                }
                if parameter.step > 0 && name != "momentum_buffer" {
                    return Err(PyValueError::new_err(format!(
                        "{name} of parameter {:?} cannot start after its first step",
                        parameter.name
                    )));
                }
                lacking.push((index, name));
            }
        }
        self.add_slots(py, &lacking)?;
        Ok(lacking)
    }

    /// Takes back what `allocate` gave.
    pub(super) fn retract(&mut self, given: &[(usize, &'static str)]) {
        for &(index, name) in given {
            let slots = &mut self.parameters[index].slots;
            slots.retain(|slot| slot.name != name);
        }
        if !given.is_empty() {
            self.written = OnceLock::new();
        }
    }

    /// Allocates state arrays of parameters by their index.
    fn add_slots(&mut self, py: Python<'_>, lacking: &[(usize, &'static str)]) -> PyResult<()> {
        if lacking.is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for &(index, name) in lacking {
            let parameter = &self.parameters[index];
            let layout = &parameter.layout;
            let method = &self.groups[parameter.group].method;
            let shape = method.state_shape(name, &layout.shape);
            let dtype = self.storage.of(name, layout.dtype);
            let scales = scale_count(shape.iter().product());
            wanted.push(Wanted {
                label: name.to_owned(),
                dtype,
                shape,
            });
            if is_scaled(dtype) {
                wanted.push(Wanted {
                    label: scale_name(name),
                    dtype: Dtype::F32,
                    shape: vec![scales],
                });
            }
        }
        let dtypes: Vec<Dtype> = wanted.iter().map(|wanted| wanted.dtype).collect();
        let mut pieces = allocate(py, &wanted)?.into_iter().zip(dtypes);
        for &(index, name) in lacking {
            let Some((numbers, dtype)) = pieces.next() else {
                break;
            };
            let scales = if is_scaled(dtype) {
                pieces.next().map(|(scales, _)| scales)
            } else {
                None
            };
            self.parameters[index].slots.push(Slot {
                name,
                dtype,
                numbers,
                scales,
                started: false,
            });
        }
        self.written = OnceLock::new();
        Ok(())
    }

    /// Allocates what the hyperparameters ask for and what a restored state has.
    fn make_room(&mut self, py: Python<'_>, state: &[Restored<'_>]) -> PyResult<()> {
        let mut lacking = Vec::new();
        for (index, (parameter, (_, _, arrays))) in self.parameters.iter().zip(state).enumerate() {
            let method = &self.groups[parameter.group].method;
            let needed = method.state(parameter.layout.shape.len());
            let others = method.optional_state();
            let given = |name: &&&str| arrays.contains_key(**name) && !needed.contains(name);
            let names = needed.iter().chain(others.iter().filter(given));
            let lacks = names.filter(|name| parameter.slot(name).is_none());
            lacking.extend(lacks.map(|&name| (index, name)));
        }
        self.add_slots(py, &lacking)
    }

    /// All memory that a step writes in any case, by address.
    pub(super) fn written(&self) -> Ranges {
        let make = || {
            let mut ranges: Vec<Range<usize>> = Vec::with_capacity(self.parameters.len());
            for parameter in &self.parameters {
                ranges.extend(parameter.slots.iter().flat_map(Slot::ranges));
                ranges.push(parameter.layout.range());
            }
            ranges.retain(|range| !range.is_empty());
            ranges.sort_unstable_by_key(|range| range.start);
            // They do not overlap; those that touch become one.
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

    /// Views of the state arrays of one parameter by name, each with whether it holds anything yet.
    pub(super) fn views<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Vec<(String, Bound<'py, PyAny>, bool)>> {
        let mut views = Vec::new();
        for slot in &self.parameters[index].slots {
            let view = |piece: &Piece| piece.array.bind(py).call_method0("view");
            views.push((slot.name.to_owned(), view(&slot.numbers)?, slot.started));
            if let Some(scales) = &slot.scales {
                views.push((scale_name(slot.name), view(scales)?, slot.started));
            }
        }
        Ok(views)
    }

    /// The numbers in the state of one parameter beside its step.
    pub(super) fn numbers(&self, index: usize) -> Vec<(&'static str, f64)> {
        let parameter = &self.parameters[index];
        let names = self.groups[parameter.group].method.scalars();
        let pairs = names.iter().zip(parameter.scalars);
        pairs.map(|((name, _), x)| (*name, x)).collect()
    }

    /// A copy of the state of all parameters at one moment; none of one that no step has touched.
    pub(super) fn copies<'py>(&self, py: Python<'py>) -> PyResult<Vec<Option<Saved<'py>>>> {
        let _guard = inflight::register(Vec::new().into(), self.written())?;
        let copy = |(index, parameter): (usize, &Parameter)| {
            let started = self.views(py, index)?.into_iter().filter(|slot| slot.2);
            let arrays: Vec<_> = started
                .map(|(name, view, _)| Ok((name, view.call_method0("copy")?)))
                .collect::<PyResult<_>>()?;
            let scalars = self.numbers(index);
            let initial = self.groups[parameter.group].method.scalars();
            let touched = parameter.step > 0 || !arrays.is_empty() || scalars != initial;
            Ok(touched.then_some((parameter.step, scalars, arrays)))
        };
        self.parameters.iter().enumerate().map(copy).collect()
    }

    /// What the state of each parameter may be under other groups.
    pub(super) fn expect(&self, groups: &[Group]) -> Vec<Expected> {
        let expect = |parameter: &Parameter| {
            let method = &groups[parameter.group].method;
            let layout = &parameter.layout;
            let names = method.state(layout.shape.len());
            let others = method.optional_state();
            let others = others.iter().filter(|name| !names.contains(name));
            let all = names.iter().map(|name| (*name, true));
            let mut arrays = Vec::new();
            for (name, needed) in all.chain(others.map(|name| (*name, false))) {
                let shape = method.state_shape(name, &layout.shape);
                let dtype = self.storage.of(name, layout.dtype);
                let scales = scale_count(shape.iter().product());
                // Momentum may be switched on at any step.
                let needed = needed && name != "momentum_buffer";
                arrays.push((name.to_owned(), dtype.to_string(), shape, needed));
                if is_scaled(dtype) {
                    let dtype = Dtype::F32.to_string();
                    arrays.push((scale_name(name), dtype, vec![scales], needed));
                }
            }
            (method.scalars(), arrays)
        };
        self.parameters.iter().map(expect).collect()
    }

    /// Takes over groups and state that are what `expect` asks for. State arrays that are not given
    /// hold nothing.
    pub(super) fn take_over(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        state: Vec<Restored<'_>>,
        steps: u64,
    ) -> PyResult<()> {
        let _guard = inflight::register(self.written(), Vec::new().into())?;
        let before = std::mem::replace(&mut self.steps, steps);
        let ready = self
            .read_groups(groups)
            .and_then(|()| self.make_room(py, &state));
        if let Err(error) = ready {
            self.steps = before;
            return Err(error);
        }
        for (parameter, (step, scalars, arrays)) in self.parameters.iter_mut().zip(state) {
            parameter.step = step;
            for (own, new) in parameter.scalars.iter_mut().zip(scalars) {
                *own = new;
            }
            for slot in &mut parameter.slots {
                slot.started = arrays.contains_key(slot.name);
                let set = |piece: &Piece, name: &str| {
                    let array = piece.array.bind(py);
                    match arrays.get(name) {
                        Some(given) => array.set_item(py.Ellipsis(), given),
                        None => array.set_item(py.Ellipsis(), 0),
                    }
                };
                set(&slot.numbers, slot.name)?;
                if let Some(scales) = &slot.scales {
                    set(scales, &scale_name(slot.name))?;
                }
            }
        }
        Ok(())
    }
}

fn is_scaled(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::I8 | Dtype::U8)
}
