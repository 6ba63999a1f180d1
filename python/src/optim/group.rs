//! Parameter groups: dictionaries that users may change between steps, so every step reads them.

use std::ptr;

use fastoptim::optim::hyper::{self, Spec, Value};
use fastoptim::optim::{Kind, Method, StateSpec};
use fastoptim::step::Regularization;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple};

use crate::arguments;
use crate::error::to_py;
use crate::optim::regularizer;

/// The options of every optimizer in addition to its hyperparameters.
const MAXIMIZE: Spec = Spec {
    name: "maximize",
    kind: hyper::Kind::Flag,
};

/// The keys of a group that are not hyperparameters.
const REGULARIZER: &str = "regularizer";
const PARAMS: &str = "params";

/// The keys of a group that the core reads.
pub(crate) struct Keys {
    kind: Kind,
    specs: Vec<Py<PyString>>,
    maximize: Py<PyString>,
    /// A group may lack it: then it has that of the step.
    regularizer: Py<PyString>,
    params: Py<PyString>,
}

impl Keys {
    /// Returns the keys of the groups of an optimizer.
    pub(crate) fn named(py: Python<'_>, kind: &str) -> PyResult<Self> {
        let kind = Kind::from_name(kind)
            .ok_or_else(|| PyValueError::new_err(format!("unknown optimizer {kind:?}")))?;
        let intern = |name| PyString::intern(py, name).unbind();
        Ok(Self {
            kind,
            specs: kind.specs().iter().map(|spec| intern(spec.name)).collect(),
            maximize: intern(MAXIMIZE.name),
            regularizer: intern(REGULARIZER),
            params: intern(PARAMS),
        })
    }

    /// Reads and checks the values of a group. A hyperparameter that is a function is called with
    /// `steps`.
    pub(crate) fn read(&self, group: &Bound<'_, PyAny>, steps: u64) -> PyResult<Group> {
        let py = group.py();
        let dict = group.cast::<PyDict>()?;
        let mut values = Vec::with_capacity(self.specs.len());
        let mut constant = true;
        for (spec, key) in self.kind.specs().iter().zip(&self.specs) {
            let object = required(dict, key.bind(py))?;
            values.push(value(spec, &object, steps)?);
            constant &= is_constant(&object);
        }
        let object = required(dict, self.maximize.bind(py))?;
        let maximize = value(&MAXIMIZE, &object, steps)? == Value::Flag(true);
        constant &= is_constant(&object);
        let method = self.kind.method(&values).map_err(to_py)?;
        let own = dict.get_item(self.regularizer.bind(py))?;
        let regularization = own.as_ref().map(regularizer::read).transpose()?;
        if let Some(regularization) = &regularization {
            method.check_regularization(regularization).map_err(to_py)?;
        }
        let entry = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let value = self.reads(&key).then(|| value.unbind());
            (key.unbind(), value)
        };
        Ok(Group {
            method,
            maximize,
            regularization,
            params: required(dict, self.params.bind(py))?.unbind(),
            constant,
            entries: dict.iter().map(entry).collect(),
        })
    }

    /// Returns whether the core reads the value of a key. No Python code runs.
    fn reads(&self, key: &Bound<'_, PyAny>) -> bool {
        let Ok(key) = key.cast::<PyString>() else {
            return false;
        };
        let own = [MAXIMIZE.name, PARAMS, REGULARIZER];
        let known =
            |name| own.contains(&name) || self.kind.specs().iter().any(|spec| spec.name == name);
        key.to_str().is_ok_and(known)
    }

    /// Returns the value of "params" of a group.
    pub(crate) fn params<'py>(&self, group: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        required(group.cast::<PyDict>()?, self.params.bind(group.py()))
    }
}

/// The values of a group when it was last read.
pub(crate) struct Group {
    pub(crate) method: Method,
    pub(crate) maximize: bool,
    /// `None` if the group has no key "regularizer".
    pub(crate) regularization: Option<Regularization>,
    /// The value of "params".
    pub(crate) params: Py<PyAny>,
    /// Whether all hyperparameters are immutable, so that the same objects have the same values.
    constant: bool,
    /// The entries of the dictionary in order, with the values of those that the core reads.
    entries: Vec<(Py<PyAny>, Option<Py<PyAny>>)>,
}

impl Group {
    /// Returns whether reading the group again would give the same values. A pass over a dictionary
    /// takes a fraction of the time of a search for each key. Regularizers are immutable.
    pub(crate) fn is_current(&self, group: &Bound<'_, PyAny>) -> PyResult<bool> {
        let dict = group.cast::<PyDict>()?;
        if !self.constant || dict.len() != self.entries.len() {
            return Ok(false);
        }
        let (mut position, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        for (own, object) in &self.entries {
            // SAFETY: the thread is attached to the interpreter, `dict` is a dictionary, and the
            // pointers are to local variables. The references that they receive are only compared.
            let found = unsafe {
                ffi::PyDict_Next(dict.as_ptr(), &mut position, &mut key, &mut value) != 0
            };
            let same = |object: &Py<PyAny>| object.as_ptr() == value;
            if !found || own.as_ptr() != key || !object.as_ref().is_none_or(same) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Visits the references for the garbage collector.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.params)?;
        self.entries.iter().try_for_each(|(key, value)| {
            visit.call(key)?;
            visit.call(value)
        })
    }
}

/// Finds the state arrays that steps of parameters use. Most parameters have the group and the rank
/// of the one before them.
pub(super) struct Specs<'a> {
    groups: &'a [Group],
    last: Option<(usize, usize, &'static [StateSpec])>,
}

impl<'a> Specs<'a> {
    pub(super) fn new(groups: &'a [Group]) -> Self {
        Self { groups, last: None }
    }

    /// Returns the state arrays of parameters of this rank in a group.
    pub(super) fn of(&mut self, group: usize, rank: usize) -> &'static [StateSpec] {
        if let Some((last_group, last_rank, specs)) = self.last
            && (last_group, last_rank) == (group, rank)
        {
            return specs;
        }
        let specs = self.groups[group].method.state(rank);
        self.last = Some((group, rank, specs));
        specs
    }
}

fn required<'py>(
    group: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    group
        .get_item(key)?
        .ok_or_else(|| PyValueError::new_err(format!("a parameter group lacks {key}")))
}

fn is_constant(object: &Bound<'_, PyAny>) -> bool {
    let scalar = |object: &Bound<'_, PyAny>| {
        object.is_exact_instance_of::<PyFloat>()
            || object.is_exact_instance_of::<PyInt>()
            || object.is_exact_instance_of::<PyBool>()
            || object.is_exact_instance_of::<PyString>()
            || object.is_none()
    };
    match object.cast_exact::<PyTuple>() {
        Ok(tuple) => tuple.iter().all(|item| scalar(&item)),
        Err(_) => scalar(object),
    }
}

/// Returns the value of a hyperparameter, which may be a function of the number of steps.
fn value(spec: &Spec, object: &Bound<'_, PyAny>, steps: u64) -> PyResult<Value> {
    let called;
    let object = if object.is_callable() {
        called = object.call1((steps,))?;
        &called
    } else {
        object
    };
    arguments::value(spec, object)
}
