//! Parameter groups: dictionaries that users may change between steps, so every step reads them.

use std::ptr;

use fastoptim::optim::hyper::{self, Spec, Value};
use fastoptim::optim::{Kind, Method};
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
    pub(crate) fn new(py: Python<'_>, kind: Kind) -> Self {
        let intern = |name| PyString::intern(py, name).unbind();
        Self {
            kind,
            specs: kind.specs().iter().map(|spec| intern(spec.name)).collect(),
            maximize: intern(MAXIMIZE.name),
            regularizer: intern("regularizer"),
            params: intern("params"),
        }
    }

    /// Reads and checks the values of a group. A hyperparameter that is a function is called with
    /// `steps`.
    pub(crate) fn read(&self, group: &Bound<'_, PyAny>, steps: u64) -> PyResult<Group> {
        let py = group.py();
        let dict = group.cast::<PyDict>()?;
        let mut values = Vec::with_capacity(self.specs.len());
        let mut objects = Vec::with_capacity(self.specs.len() + 1);
        for (spec, key) in self.kind.specs().iter().zip(&self.specs) {
            let object = required(dict, key.bind(py))?;
            values.push(value(spec, &object, steps)?);
            objects.push(object.unbind());
        }
        let object = required(dict, self.maximize.bind(py))?;
        let maximize = value(&MAXIMIZE, &object, steps)? == Value::Flag(true);
        objects.push(object.unbind());
        let method = self.kind.method(&values).map_err(to_py)?;
        let own = dict.get_item(self.regularizer.bind(py))?;
        let regularization = own.as_ref().map(regularizer::read).transpose()?;
        if let Some(regularization) = &regularization {
            method.check_regularization(regularization).map_err(to_py)?;
        }
        Ok(Group {
            method,
            maximize,
            regularization,
            regularizer: own.map(Bound::unbind),
            params: required(dict, self.params.bind(py))?.unbind(),
            constant: objects.iter().all(|object| is_constant(object.bind(py))),
            objects,
            entries: self.entries(dict)?,
        })
    }

    /// Returns the keys of a group in order, with the values of those that the core reads, or nothing
    /// if these keys are other objects than the interned strings.
    fn entries(&self, dict: &Bound<'_, PyDict>) -> PyResult<Vec<Entry>> {
        let own = [&self.maximize, &self.params, &self.regularizer];
        let mut missing = self.specs.len() + own.len();
        if !dict.contains(self.regularizer.bind(dict.py()))? {
            missing -= 1;
        }
        let mut entries = Vec::with_capacity(dict.len());
        for (key, value) in dict.iter() {
            let is_read = self.specs.iter().chain(own).any(|own| key.is(own));
            missing -= usize::from(is_read);
            entries.push((key.unbind(), is_read.then(|| value.unbind())));
        }
        if missing > 0 {
            entries.clear();
        }
        Ok(entries)
    }

    /// Returns the value of "params" of a group.
    pub(crate) fn params<'py>(&self, group: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        required(group.cast::<PyDict>()?, self.params.bind(group.py()))
    }

    /// Returns whether reading the group again would give the same values.
    pub(crate) fn is_current(&self, known: &Group, group: &Bound<'_, PyAny>) -> PyResult<bool> {
        if !known.constant {
            return Ok(false);
        }
        let py = group.py();
        let dict = group.cast::<PyDict>()?;
        if known.has_entries_of(dict) {
            return Ok(true);
        }
        let keys = self.specs.iter().chain([&self.maximize, &self.params]);
        for (key, object) in keys.zip(known.objects.iter().chain([&known.params])) {
            match dict.get_item(key.bind(py))? {
                Some(now) if now.is(object) => {}
                _ => return Ok(false),
            }
        }
        // Regularizers are immutable.
        let regularizer = dict.get_item(self.regularizer.bind(py))?;
        Ok(match (&known.regularizer, regularizer) {
            (None, None) => true,
            (Some(object), Some(now)) => now.is(object),
            _ => false,
        })
    }
}

/// The values of a group when it was last read.
pub(crate) struct Group {
    pub(crate) method: Method,
    pub(crate) maximize: bool,
    /// `None` if the group has no key "regularizer".
    pub(crate) regularization: Option<Regularization>,
    regularizer: Option<Py<PyAny>>,
    /// The value of "params".
    pub(crate) params: Py<PyAny>,
    /// The objects that were read. If all are immutable, the same objects have the same values.
    objects: Vec<Py<PyAny>>,
    constant: bool,
    /// As returned by [`Keys::entries`].
    entries: Vec<Entry>,
}

/// A key of a group, and its value if the core reads it.
type Entry = (Py<PyAny>, Option<Py<PyAny>>);

impl Group {
    /// Returns whether the group has the same keys in the same order, and those that the core reads
    /// the same values. A pass over a dictionary takes a fraction of the time of a search for each
    /// key.
    fn has_entries_of(&self, dict: &Bound<'_, PyDict>) -> bool {
        if dict.len() != self.entries.len() {
            return false;
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
                return false;
            }
        }
        true
    }

    /// Visits the references for the garbage collector.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.params)?;
        visit.call(&self.regularizer)?;
        for (key, value) in &self.entries {
            visit.call(key)?;
            visit.call(value)?;
        }
        self.objects
            .iter()
            .try_for_each(|object| visit.call(object))
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
