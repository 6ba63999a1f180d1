//! The engine over tensors of PyTorch, whose memory and state belong to somebody else: what was
//! checked in one step is planned for the next, which checks only that it is still so.

mod average;
pub(crate) mod engine;
mod gradients;
mod groups;
mod pairs;
mod plan;
mod saved;
mod state;
mod step;

use std::collections::HashMap;

use fastoptim::step::Progress;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::parameter_set::ParameterSet;
use crate::memory::tensor::{Scratch, Torch};
use plan::Plan;

/// Parameters in groups as PyTorch has them, with a plan for each.
pub(super) struct TensorSet {
    set: ParameterSet,
    /// One for each parameter of the set.
    plans: Vec<Plan>,
    torch: Torch,
    keys: Keys,
    /// What a group is given that lacks a key.
    defaults: Py<PyDict>,
    /// Whether the state of a parameter has its steps.
    counted: bool,
    /// Which parameters the last step was about.
    active: Vec<bool>,
    /// Whether nobody but the optimizer had the dictionary of the state when it was last looked at.
    trusted: bool,
    /// Whether memory that a step writes has moved since its ranges were last sorted.
    moved: bool,
    scratch: Scratch,
}

/// Strings by which dictionaries and attributes are read.
struct Keys {
    grad: Py<PyString>,
    params: Py<PyString>,
    param_names: Py<PyString>,
}

impl TensorSet {
    fn new(
        py: Python<'_>,
        set: ParameterSet,
        torch: Torch,
        defaults: Py<PyDict>,
        counted: bool,
    ) -> Self {
        let intern = |name| PyString::intern(py, name).unbind();
        Self {
            counted: counted || set.storage.stochastic,
            set,
            plans: Vec::new(),
            torch,
            keys: Keys {
                grad: intern("grad"),
                params: intern("params"),
                param_names: intern("param_names"),
            },
            defaults,
            active: Vec::new(),
            trusted: false,
            moved: true,
            scratch: Scratch::default(),
        }
    }

    /// Shows the garbage collector what this holds.
    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.defaults)?;
        visit.call(&self.torch.support)?;
        for plan in &self.plans {
            for item in &plan.items {
                visit.call(&item.value)?;
            }
        }
        self.set.traverse(visit)
    }

    /// The name of a parameter in messages.
    fn label(&self, index: usize) -> String {
        format!("params[{:?}]", self.set.parameters[index].name)
    }

    /// Forgets what was checked; the numbers of what has no state stay.
    fn forget(&mut self) {
        self.set.parameters.clear();
        self.plans.clear();
        self.moved = true;
    }
}

/// The state of the parameters as `opt.state` has it, found in the order in which it was added.
struct States<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    position: ffi::Py_ssize_t,
    index: Option<HashMap<usize, *mut ffi::PyObject>>,
}

impl<'a, 'py> States<'a, 'py> {
    fn new(dict: &'a Bound<'py, PyDict>) -> Self {
        Self {
            dict,
            position: 0,
            index: None,
        }
    }

    /// Forgets what code of Python may have changed.
    fn refresh(&mut self) {
        self.index = None;
    }

    /// The next entry.
    fn next(&mut self) -> Option<(*mut ffi::PyObject, *mut ffi::PyObject)> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a dictionary, and the interpreter is attached; borrowed references come out.
        let found = unsafe {
            ffi::PyDict_Next(
                self.dict.as_ptr(),
                &raw mut self.position,
                &raw mut key,
                &raw mut value,
            )
        };
        (found != 0).then_some((key, value))
    }

    /// What stands for a parameter, by its identity, as a tensor is hashed: nothing is called.
    fn find(&mut self, parameter: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let wanted = parameter.as_ptr();
        let mut value = None;
        if self.index.is_none() {
            while let Some((key, found)) = self.next() {
                if key == wanted {
                    value = Some(found);
                    break;
                }
            }
        }
        if value.is_none() {
            if self.index.is_none() {
                let mut index = HashMap::new();
                self.position = 0;
                while let Some((key, found)) = self.next() {
                    index.insert(key.addr(), found);
                }
                self.index = Some(index);
            }
            let index = self.index.as_ref()?;
            value = index.get(&wanted.addr()).copied();
        }
        // SAFETY: a borrowed reference out of the dictionary, in which it has been since: no code of
        // Python runs while this is used.
        value.map(|value| unsafe { Bound::from_borrowed_ptr(parameter.py(), value) })
    }
}

/// The steps and numbers of parameters by identity, to keep them where the plans are made anew.
type Known = HashMap<usize, Progress>;
