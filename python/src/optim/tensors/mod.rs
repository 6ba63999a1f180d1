//! The engine for PyTorch tensors, whose memory and state other code may change. The results of
//! checks are kept as plans, so that the next step only checks that they still hold.

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

/// The parameters in their groups, with a plan for each.
pub(super) struct TensorSet {
    set: ParameterSet,
    /// One plan for each parameter of the set.
    plans: Vec<Plan>,
    torch: Torch,
    keys: Keys,
    /// The values of keys that a group lacks.
    defaults: Py<PyDict>,
    /// Whether the state of each parameter has its number of steps.
    counted: bool,
    /// Which parameters the last step used.
    active: Vec<bool>,
    /// Whether only the engine had a reference to the dictionary of the state at the last check.
    trusted: bool,
    /// Whether memory that a step writes has moved since its ranges were sorted.
    moved: bool,
    scratch: Scratch,
}

/// The names of keys and attributes.
struct Keys {
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

    /// Visits the references for the garbage collector.
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

    /// Returns the name of a parameter in messages.
    fn label(&self, index: usize) -> String {
        format!("params[{:?}]", self.set.parameters[index].name)
    }

    /// Discards all plans.
    fn forget(&mut self) {
        self.set.parameters.clear();
        self.plans.clear();
        self.moved = true;
    }
}

/// Finds the entries of `opt.state` by parameter, in the order of the dictionary.
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

    /// Discards the index after Python code may have changed the dictionary.
    fn refresh(&mut self) {
        self.index = None;
    }

    /// Returns the next entry.
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

    /// Returns the entry of a parameter by its identity, without a Python call.
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
        // SAFETY: borrowed from the dictionary, which still has it: no Python code runs while
        // `self` is used, or `refresh` discards the index.
        value.map(|value| unsafe { Bound::from_borrowed_ptr(parameter.py(), value) })
    }
}

/// The progress of parameters by identity, which new plans keep.
type Known = HashMap<usize, Progress>;
