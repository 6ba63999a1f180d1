//! Reads, checks and extends the state of the parameters in `opt.state`.

use std::collections::HashMap;

use fastoptim::optim::StateSpec;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::TensorSet;
use super::plan::{Item, Place, has_order, order_of};
use crate::memory::numpy::{Address, Dtype};
use crate::memory::strided;
use crate::memory::tensor::Form;
use crate::memory::view;
use crate::optim::parameter::{Piece, Slot, slice_mut};

/// A missing entry of the state of a parameter.
pub(super) struct Want {
    index: usize,
    name: String,
    what: Missing,
}

enum Missing {
    Number(f64),
    Array(Dtype, Vec<usize>),
}

/// The entries that a step added to the state, and removes if it is not applied.
#[derive(Default)]
pub(super) struct Added<'py> {
    /// The parameters that had no state.
    whole: Vec<usize>,
    /// The state of each parameter, and the names that were added to it.
    entries: HashMap<usize, (Bound<'py, PyDict>, Vec<String>)>,
}

impl Added<'_> {
    /// Returns whether an entry was added.
    pub(super) fn has(&self, index: usize, name: &str) -> bool {
        let entry = self.entries.get(&index);
        entry.is_some_and(|(_, names)| names.iter().any(|added| added == name))
    }
}

/// Returns the name of the scales of a state array.
fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

impl TensorSet {
    /// Checks the state of a parameter and plans its use. Adds missing entries to `wants`, if the
    /// parameter has a gradient. Python code may run.
    pub(super) fn read_state<'py>(
        &mut self,
        index: usize,
        state: Option<&Bound<'py, PyDict>>,
        added: &Added<'py>,
        wants: Option<&mut Vec<Want>>,
    ) -> PyResult<()> {
        self.moved = true;
        let plan = &mut self.plans[index];
        plan.items.clear();
        plan.checked = false;
        let name = self.set.parameters[index].name.clone();
        let specs = self.set.specs(&self.set.parameters[index]);
        let method = self.set.groups[self.set.parameters[index].group]
            .method
            .clone();
        let scalars = method.scalars();
        self.set.parameters[index].slots.clear();
        let mut found: Vec<String> = Vec::new();
        let mut clean = true;
        if let Some(state) = state {
            // A copy, as entries are replaced on the way.
            for (key, value) in state.copy()?.iter() {
                let text: Option<String> = key.cast::<PyString>().ok().map(|key| key.to_string());
                let place = match text.as_deref() {
                    _ if value.is_none() => Place::Other,
                    Some("step") if self.counted => Place::Step,
                    Some(text) => self.place(index, text, specs, &scalars),
                    None => Place::Other,
                };
                let label = || format!("{} of {name:?}", text.as_deref().unwrap_or_default());
                let mut item = Item {
                    key: key.clone().unbind(),
                    place,
                    value: None,
                    form: None,
                    in_place: true,
                };
                let form = match place {
                    Place::Other => None,
                    Place::Step | Place::Scalar(_) => {
                        let wanted = (Dtype::F64, Vec::new());
                        Some(self.fitting(&label(), state, &key, &value, wanted, &mut clean)?)
                    }
                    Place::Numbers(slot) | Place::Scales(slot) => {
                        let wanted = self.wanted(index, slot, place == Place::Numbers(slot));
                        Some(self.fitting(&label(), state, &key, &value, wanted, &mut clean)?)
                    }
                };
                if let Some(form) = form {
                    found.extend(text.clone());
                    let fresh = added.has(index, text.as_deref().unwrap_or_default());
                    self.take(index, &mut item, &form, fresh);
                    item.form = Some(form);
                }
                self.plans[index].items.push(item);
            }
        }
        let has = |name: &str| found.iter().any(|found| found == name);
        let plan = &mut self.plans[index];
        plan.summarize();
        (plan.specs, plan.checked, plan.complete) = (specs, clean, false);
        let Some(wants) = wants else {
            return Ok(());
        };
        let old = |spec: &StateSpec| has(spec.name) && !added.has(index, spec.name);
        let started = specs.iter().any(old);
        let lacks = |what: &str| {
            let message = format!("state of {name:?} lacks {what:?}");
            Err(PyValueError::new_err(message))
        };
        let before = wants.len();
        let mut want = |name: String, what| wants.push(Want { index, name, what });
        if self.counted && !has("step") {
            if started {
                return lacks("step");
            }
            self.set.parameters[index].progress.steps = 0;
            want("step".into(), Missing::Number(0.0));
        }
        for (scalar, first) in &scalars {
            if !has(scalar) {
                if started {
                    return lacks(scalar);
                }
                want((*scalar).into(), Missing::Number(*first));
            }
        }
        let steps = self.set.parameters[index].progress.steps;
        for spec in specs {
            let (dtype, shape) = self.wanted_of(index, spec, true);
            if !has(spec.name) {
                if started && steps > 0 && !spec.late_start {
                    return Err(PyValueError::new_err(format!(
                        "{} of parameter {name:?} cannot start after its first step",
                        spec.name
                    )));
                }
                want(spec.name.into(), Missing::Array(dtype, shape));
            }
            let scale = scale_name(spec.name);
            if view::encoding(dtype).is_scaled() && !has(&scale) {
                if old(spec) {
                    return lacks(&scale);
                }
                let (dtype, shape) = self.wanted_of(index, spec, false);
                want(scale, Missing::Array(dtype, shape));
            }
        }
        self.plans[index].complete = wants.len() == before;
        Ok(())
    }

    /// Returns how a step uses an entry of the state.
    fn place(
        &mut self,
        index: usize,
        name: &str,
        specs: &'static [StateSpec],
        scalars: &[(&'static str, f64)],
    ) -> Place {
        if let Some(j) = scalars.iter().position(|(scalar, _)| *scalar == name) {
            return Place::Scalar(j);
        }
        let numbers = specs.iter().find(|spec| spec.name == name);
        let scales = || specs.iter().find(|spec| scale_name(spec.name) == name);
        match (numbers, scales()) {
            (Some(spec), _) => Place::Numbers(self.slot(index, spec)),
            (None, Some(spec)) => {
                let (dtype, _) = self.wanted_of(index, spec, true);
                if view::encoding(dtype).is_scaled() {
                    Place::Scales(self.slot(index, spec))
                } else {
                    Place::Other
                }
            }
            (None, None) => Place::Other,
        }
    }

    /// Returns the index of the slot of a state array, which is added if there is none.
    fn slot(&mut self, index: usize, spec: &'static StateSpec) -> usize {
        let slots = &self.set.parameters[index].slots;
        if let Some(at) = slots.iter().position(|slot| slot.spec.name == spec.name) {
            return at;
        }
        let nowhere = Address(std::ptr::null_mut());
        let (dtype, shape) = self.wanted_of(index, spec, true);
        let scales = view::encoding(dtype).is_scaled().then(|| {
            let (dtype, shape) = self.wanted_of(index, spec, false);
            Box::new(Piece::elsewhere(nowhere, dtype, &shape))
        });
        let slots = &mut self.set.parameters[index].slots;
        slots.push(Slot {
            spec,
            numbers: Piece::elsewhere(nowhere, dtype, &shape),
            scales,
            started: false,
        });
        slots.len() - 1
    }

    /// Returns the dtype and shape of the numbers of a state array, or of their scales.
    fn wanted_of(&self, index: usize, spec: &StateSpec, numbers: bool) -> (Dtype, Vec<usize>) {
        let parameter = &self.set.parameters[index];
        let layout = &parameter.layout;
        let method = &self.set.groups[parameter.group].method;
        let shape = method.state_shape(spec.name, &layout.shape);
        let dtype = self.set.storage.of(spec, layout.dtype);
        if numbers {
            return (dtype, shape);
        }
        let count = view::encoding(dtype).scales(shape.iter().product());
        (Dtype::F32, vec![count])
    }

    fn wanted(&self, index: usize, slot: usize, numbers: bool) -> (Dtype, Vec<usize>) {
        let spec = self.set.parameters[index].slots[slot].spec;
        self.wanted_of(index, spec, numbers)
    }

    /// Returns the layout of an entry of this dtype and shape. Replaces an entry of a narrower type
    /// by a tensor with the same numbers.
    fn fitting<'py>(
        &mut self,
        label: &str,
        state: &Bound<'py, PyDict>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        (dtype, shape): (Dtype, Vec<usize>),
        clean: &mut bool,
    ) -> PyResult<Form> {
        let seen = self.torch.see(value, &mut self.scratch);
        if let Some(form) = seen.map(|seen| seen.form())
            && form.dtype == dtype
            && form.shape == shape
        {
            return Ok(form);
        }
        *clean = false;
        let support = self.torch.support.bind(key.py());
        let arguments = (label, value, dtype.to_string(), shape.clone());
        let made = support.call_method1("fitting", arguments)?;
        let form = self
            .torch
            .see(&made, &mut self.scratch)
            .map(|seen| seen.form());
        let form = form.filter(|form| form.dtype == dtype && form.shape == shape);
        let form = form.ok_or_else(|| self.torch.refusal(label, value))?;
        state.set_item(key, made)?;
        Ok(form)
    }

    /// Plans the use of an entry.
    fn take(&mut self, index: usize, item: &mut Item, form: &Form, fresh: bool) {
        let plan = &self.plans[index];
        let order = order_of(plan, &form.shape);
        let slots = &mut self.set.parameters[index].slots;
        match item.place {
            Place::Numbers(slot) => {
                item.in_place = has_order(form, &form.shape, &order);
                slots[slot].numbers.data = form.data;
                slots[slot].started = !fresh;
            }
            Place::Scales(slot) => {
                item.in_place = has_order(form, &form.shape, &strided::c_order(&form.shape));
                if let Some(scales) = &mut slots[slot].scales {
                    scales.data = form.data;
                }
            }
            Place::Step | Place::Scalar(_) | Place::Other => {}
        }
    }

    /// Creates missing entries with zeros and initial values, and adds them to the state.
    pub(super) fn add<'py>(
        &mut self,
        state: &Bound<'py, PyDict>,
        objects: &[Bound<'py, PyAny>],
        wants: Vec<Want>,
        added: &mut Added<'py>,
    ) -> PyResult<()> {
        let py = state.py();
        let (mut numbers, mut arrays) = (Vec::new(), Vec::new());
        for Want { index, what, .. } in &wants {
            match what {
                Missing::Number(x) => numbers.push(*x),
                Missing::Array(dtype, shape) => {
                    let like = &self.set.parameters[*index].layout.shape == shape
                        && !self.set.groups[self.set.parameters[*index].group]
                            .method
                            .works_by_shape();
                    arrays.push((&objects[*index], dtype.to_string(), shape.clone(), like));
                }
            }
        }
        let support = self.torch.support.bind(py);
        let numbers: Vec<Bound<'py, PyAny>> =
            support.call_method1("numbers", (numbers,))?.extract()?;
        let arrays: Vec<Bound<'py, PyAny>> =
            support.call_method1("unwritten", (arrays,))?.extract()?;
        let (mut numbers, mut arrays) = (numbers.into_iter(), arrays.into_iter());
        for Want { index, name, what } in wants {
            let made = match &what {
                Missing::Number(_) => numbers.next(),
                Missing::Array(..) => arrays.next(),
            };
            let made = made.ok_or_else(|| PyValueError::new_err("fewer tensors than wanted"))?;
            if matches!(what, Missing::Array(..)) {
                self.clear(&made)?;
            }
            if !added.entries.contains_key(&index) {
                let parameter = &self.set.parameters[index].name;
                let entry = match state.get_item(&objects[index])? {
                    Some(entry) => entry.cast_into().map_err(|_| not_dict(parameter))?,
                    None => {
                        let entry = PyDict::new(py);
                        state.set_item(&objects[index], &entry)?;
                        added.whole.push(index);
                        entry
                    }
                };
                added.entries.insert(index, (entry, Vec::new()));
            }
            if let Some((entry, names)) = added.entries.get_mut(&index) {
                entry.set_item(&name, made)?;
                names.push(name);
            }
        }
        Ok(())
    }

    /// Sets a new tensor to 0.
    fn clear(&mut self, made: &Bound<'_, PyAny>) -> PyResult<()> {
        let seen = self
            .torch
            .see(made, &mut self.scratch)
            .map(|seen| seen.form());
        let form = seen.filter(Form::is_dense);
        let form = form.ok_or_else(|| self.torch.refusal("state", made))?;
        // SAFETY: the elements of a new dense tensor, to which no other code has a reference. All
        // bits 0 are the number 0 in every dtype.
        unsafe { slice_mut::<u8>(form.data, form.len() * form.dtype.size()) }.fill(0);
        Ok(())
    }

    /// Removes the entries that were added for a step that was not applied.
    pub(super) fn remove(
        &mut self,
        state: &Bound<'_, PyDict>,
        objects: &[Bound<'_, PyAny>],
        added: &Added<'_>,
    ) {
        // Other code may have removed entries already.
        for (index, (entry, names)) in &added.entries {
            for name in names {
                let _ = entry.del_item(name);
            }
            if let Some(plan) = self.plans.get_mut(*index) {
                plan.checked = false;
            }
            self.moved = true;
        }
        for index in &added.whole {
            let _ = state.del_item(&objects[*index]);
        }
    }
}

/// Returns the error for an entry of the state that is not a dictionary.
pub(super) fn not_dict(name: &str) -> PyErr {
    PyTypeError::new_err(format!("the state of {name:?} must be a dict"))
}
