//! The plan of one parameter and its state, kept between steps.

use std::ops::Range;
use std::ptr;

use fastoptim::optim::StateSpec;
use fastoptim::step::MAX_SCALARS;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::TensorSet;
use crate::error::to_py;
use crate::memory::numpy::{Address, Layout};
use crate::memory::strided::{self, Staged};
use crate::memory::tensor::Form;

/// The results of checks of a parameter and its state.
#[derive(Default)]
pub(super) struct Plan {
    /// The layout of the parameter, if it was checked.
    pub(super) form: Option<Form>,
    /// The strides of all arrays in a step: those of the parameter, or C order if they have gaps
    /// or the method works by shape.
    pub(super) order: Vec<i64>,
    /// Whether a step updates the parameter in place, without a copy.
    pub(super) in_place: bool,
    /// The state arrays of the hyperparameters at the last check.
    pub(super) specs: &'static [StateSpec],
    /// The entries of the state, in the order of the dictionary.
    pub(super) items: Vec<Item>,
    /// The numbers among them, which each step writes: the step and the scalars.
    pub(super) step: Option<Address>,
    pub(super) scalars: [Option<Address>; MAX_SCALARS],
    /// Whether a step copies an array of the state.
    pub(super) copied: bool,
    /// Whether the state was checked, and whether it has all entries that a step needs.
    pub(super) checked: bool,
    pub(super) complete: bool,
    /// Whether only the optimizer had references to the state at the last check.
    pub(super) alone: bool,
}

/// One entry of the state of a parameter.
pub(super) struct Item {
    pub(super) key: Py<PyAny>,
    pub(super) place: Place,
    /// The tensor, held while the plan relies on it.
    pub(super) value: Option<Py<PyAny>>,
    /// The layout at the last check, or `None` if a step does not use the entry.
    pub(super) form: Option<Form>,
    /// Whether a step updates it in place, without a copy.
    pub(super) in_place: bool,
}

/// How a step uses an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Step,
    /// One of the numbers beside the step.
    Scalar(usize),
    /// The numbers of a state array, by the index of its slot.
    Numbers(usize),
    /// Their scales.
    Scales(usize),
    Other,
}

impl Plan {
    /// Collects from the entries what each step uses, so that a step does not read them all.
    pub(super) fn summarize(&mut self) {
        (self.step, self.scalars, self.copied) = (None, [None; MAX_SCALARS], false);
        for item in &self.items {
            let Some(form) = &item.form else { continue };
            match item.place {
                Place::Step => self.step = Some(form.data),
                Place::Scalar(j) => self.scalars[j] = Some(form.data),
                Place::Numbers(_) => self.copied |= !item.in_place,
                Place::Scales(_) | Place::Other => {}
            }
        }
    }
}

impl TensorSet {
    /// Checks a parameter, and returns whether its layout is unchanged. Python code may run if it
    /// has changed.
    pub(super) fn check_parameter(
        &mut self,
        index: usize,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let Some(seen) = self.torch.see(object, &mut self.scratch) else {
            return Err(self.torch.refusal(&self.label(index), object));
        };
        if self.plans[index]
            .form
            .as_ref()
            .is_some_and(|form| form.matches(&seen))
        {
            return Ok(true);
        }
        let form = seen.form();
        if !form.dtype.is_float() {
            return Err(self.torch.refusal(&self.label(index), object));
        }
        let (label, py) = (self.label(index), object.py());
        self.torch
            .support
            .bind(py)
            .call_method1("check_written", (label, object))?;
        let parameter = &mut self.set.parameters[index];
        let method = &self.set.groups[parameter.group].method;
        method.check_shape(&form.shape).map_err(to_py)?;
        let plan = &mut self.plans[index];
        let by_shape = method.works_by_shape();
        let order = strided::c_order(&form.shape);
        let dense = strided::is_dense(&form.shape, &form.strides);
        plan.order = if dense && !by_shape {
            form.strides.clone()
        } else {
            order
        };
        plan.in_place = dense && has_order(&form, &form.shape, &plan.order);
        plan.checked = false;
        parameter.layout = Layout {
            dtype: form.dtype,
            shape: form.shape.clone(),
            len: form.len(),
            data: form.data,
        };
        plan.form = Some(form);
        self.moved = true;
        Ok(false)
    }

    /// Returns whether the plan of a parameter's state is still the plan for this step.
    pub(super) fn is_planned(&self, index: usize, wanted: bool) -> bool {
        let plan = &self.plans[index];
        let specs = self.set.specs(&self.set.parameters[index]);
        plan.checked && (plan.complete || !wanted) && ptr::eq(plan.specs, specs)
    }

    /// Returns whether the state of a parameter still has the planned entries, to which the plan
    /// then holds references. No Python code runs.
    pub(super) fn is_current(&mut self, index: usize, state: Option<&Bound<'_, PyDict>>) -> bool {
        let plan = &mut self.plans[index];
        let Some(state) = state else {
            plan.alone = plan.items.is_empty();
            return plan.alone;
        };
        // References: the dictionary of the whole state, and `state`.
        plan.alone = references(state.as_ptr()) == 2;
        let mut items = plan.items.iter_mut();
        let (mut position, py) = (0, state.py());
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a dictionary, and the interpreter is attached; borrowed references come out.
        while unsafe {
            ffi::PyDict_Next(
                state.as_ptr(),
                &raw mut position,
                &raw mut key,
                &raw mut value,
            ) != 0
        } {
            let Some(item) = items.next().filter(|item| item.key.as_ptr() == key) else {
                return false;
            };
            let Some(form) = &item.form else {
                continue;
            };
            // SAFETY: borrowed from the dictionary, which no code changes before this holds a
            // reference.
            let value = unsafe { Bound::from_borrowed_ptr(py, value) };
            let seen = self.torch.see(&value, &mut self.scratch);
            if !seen.is_some_and(|seen| form.matches(&seen)) {
                return false;
            }
            match &item.value {
                None => item.value = Some(value.clone().unbind()),
                // Dropping the other one may run Python code.
                Some(held) if !held.is(&value) => return false,
                Some(_) => {}
            }
            // References: the dictionary, the plan, and `value`.
            plan.alone &= references(value.as_ptr()) == 3;
        }
        items.next().is_none()
    }

    /// Returns the references to the state, which the next step checks again.
    pub(super) fn release(&mut self) -> Vec<Py<PyAny>> {
        self.trusted = false;
        let items = self.plans.iter_mut().flat_map(|plan| &mut plan.items);
        items.filter_map(|item| item.value.take()).collect()
    }

    /// Allocates copies of the parameters and state arrays that are not updated in place.
    pub(super) fn stage(&mut self) -> Vec<Staged> {
        let mut staged = Vec::new();
        for (index, plan) in self.plans.iter().enumerate() {
            if !self.active[index] {
                continue;
            }
            if plan.in_place && !plan.copied {
                continue;
            }
            let parameter = &mut self.set.parameters[index];
            if let (Some(form), false) = (&plan.form, plan.in_place) {
                let mut copy = stage(form, &plan.order);
                parameter.layout.data = copy.copy();
                staged.push(copy);
            }
            for item in &plan.items {
                if let (Place::Numbers(slot), Some(form), false) =
                    (item.place, &item.form, item.in_place)
                {
                    let slot = &mut parameter.slots[slot].numbers;
                    let mut copy = stage(form, &order_of(plan, &slot.shape));
                    slot.data = copy.copy();
                    staged.push(copy);
                }
            }
        }
        staged
    }

    /// Sorts the memory that every step writes, if none of it overlaps.
    pub(super) fn sort_written(&mut self) -> PyResult<()> {
        if !self.moved {
            return Ok(());
        }
        let mut ranges = Vec::with_capacity(self.plans.len() * 3);
        for index in 0..self.plans.len() {
            self.ranges(index, |range| ranges.push((range, index)));
        }
        ranges.retain(|(range, _)| !range.is_empty());
        ranges.sort_by_key(|(range, _)| range.start);
        for pair in ranges.windows(2) {
            if pair[1].0.start < pair[0].0.end {
                let name = |index: usize| &self.set.parameters[index].name;
                let (a, b) = (name(pair[0].1), name(pair[1].1));
                return Err(PyValueError::new_err(if pair[0].1 == pair[1].1 {
                    format!(
                        "params[{a:?}] or its state has elements that share memory with one another"
                    )
                } else {
                    format!("params[{a:?}] and params[{b:?}], or their state, share memory")
                }));
            }
        }
        let mut ranges: Vec<Range<usize>> = ranges.into_iter().map(|(range, _)| range).collect();
        ranges.dedup_by(|next, last| {
            let touch = last.end == next.start;
            if touch {
                last.end = next.end;
            }
            touch
        });
        self.set.written = std::sync::OnceLock::from(crate::memory::inflight::Ranges::from(ranges));
        self.moved = false;
        Ok(())
    }

    /// Passes the memory of an active parameter and its state to `add`.
    fn ranges(&self, index: usize, mut add: impl FnMut(Range<usize>)) {
        if !self.active[index] {
            return;
        }
        let plan = &self.plans[index];
        let mut memory = |form: &Form, in_place: bool| {
            if in_place {
                let start = form.data.0.addr();
                add(start..start + form.len() * form.dtype.size());
            } else {
                let staged = stage(form, &form.strides);
                staged.ranges().into_iter().for_each(&mut add);
            }
        };
        if let Some(form) = &plan.form {
            memory(form, plan.in_place);
        }
        for item in &plan.items {
            if let (Place::Numbers(_) | Place::Scales(_), Some(form)) = (item.place, &item.form) {
                memory(form, item.in_place);
            }
        }
    }
}

/// Returns the reference count of an object.
pub(super) fn references(object: *mut ffi::PyObject) -> ffi::Py_ssize_t {
    // SAFETY: the callers have a reference, and the interpreter is attached.
    unsafe { ffi::Py_REFCNT(object) }
}

/// Returns the order of a state array of this shape in a step.
pub(super) fn order_of(plan: &Plan, shape: &[usize]) -> Vec<i64> {
    match &plan.form {
        Some(form) if form.shape == shape => plan.order.clone(),
        _ => strided::c_order(shape),
    }
}

/// Returns whether an array is in this order and aligned, so that a step can use it in place.
pub(super) fn has_order(form: &Form, shape: &[usize], order: &[i64]) -> bool {
    strided::agree(shape, &form.strides, order) && form.dtype.aligns(form.data.0)
}

/// Allocates a copy of an array in this order.
pub(super) fn stage(form: &Form, order: &[i64]) -> Staged {
    Staged::new(
        form.data,
        form.dtype.size(),
        &form.shape,
        &form.strides,
        order,
    )
}
