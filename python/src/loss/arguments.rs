//! The named arguments of a loss: those that its signature and its specs list, from a dictionary.

use fastoptim::hyper::{self, Value};
use fastoptim::loss::signature::MAX_WEIGHTS;
use fastoptim::loss::{AnyLoss, Kind};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

use super::weights::{Given, is_array, is_list};
use crate::arguments::{self, wrong_type};
use crate::error::to_py;

/// How the values are reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduce {
    Mean,
    BatchMean,
    Sum,
    None,
}

impl Reduce {
    fn of(object: &Bound<'_, PyAny>, batch_mean: bool) -> PyResult<Self> {
        let Ok(name) = object.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!(
                "reduction must be a string, got {}",
                object.get_type().name()?
            )));
        };
        match &*name.to_cow()? {
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            "none" => Ok(Self::None),
            "batchmean" if batch_mean => Ok(Self::BatchMean),
            other => {
                let more = if batch_mean { ", 'batchmean'" } else { "" };
                Err(PyValueError::new_err(format!(
                    "reduction must be 'mean'{more}, 'sum' or 'none', got {other:?}"
                )))
            }
        }
    }
}

/// The interned names of the arguments of one loss.
struct Names {
    specs: Vec<Py<PyString>>,
    weights: Vec<Py<PyString>>,
    ignore_index: Py<PyString>,
    reduction: Py<PyString>,
}

impl Names {
    fn of(py: Python<'_>, kind: Kind) -> &'static Self {
        static NAMES: PyOnceLock<Vec<Names>> = PyOnceLock::new();
        let intern = |name| PyString::intern(py, name).unbind();
        let names = |kind: &Kind| {
            let weights = kind.signature().weights.iter();
            Self {
                specs: kind.specs().iter().map(|spec| intern(spec.name)).collect(),
                weights: weights.map(|(name, _)| intern(name)).collect(),
                ignore_index: intern("ignore_index"),
                reduction: intern("reduction"),
            }
        };
        &NAMES.get_or_init(py, || Kind::ALL.iter().map(names).collect())[kind as usize]
    }
}

/// The checked arguments of a loss. The shapes of weights are checked with the input.
pub(super) struct Arguments<'py> {
    kind: Kind,
    values: Vec<Value>,
    pub(super) loss: AnyLoss,
    /// The weights that are given, in the order of the signature.
    pub(super) weights: [Option<Given<'py>>; MAX_WEIGHTS],
    pub(super) ignore_index: Option<i64>,
    pub(super) reduce: Reduce,
}

impl<'py> Arguments<'py> {
    /// Reads the arguments of a loss. Other keys of the dictionary are not used.
    pub(super) fn read(kind: Kind, given: &Bound<'py, PyDict>) -> PyResult<Self> {
        let py = given.py();
        let (names, signature) = (Names::of(py, kind), kind.signature());
        let mut weights = [const { None }; MAX_WEIGHTS];
        let named = signature.weights.iter().zip(&names.weights);
        for (weight, (&(name, _), key)) in weights.iter_mut().zip(named) {
            let object = required(kind, given, key)?;
            if object.is_none() {
                continue;
            }
            // A number may have the name of a weight.
            if may_be_weight(&object) || kind.specs().iter().all(|spec| spec.name != name) {
                *weight = Some(Given::new(name, object)?);
            }
        }
        let mut values = Vec::with_capacity(names.specs.len());
        for (spec, key) in kind.specs().iter().zip(&names.specs) {
            let object = required(kind, given, key)?;
            let is_weight = signature.weights.iter().any(|(name, _)| *name == spec.name);
            values.push(if is_weight && may_be_weight(&object) {
                Value::Optional(None)
            } else if is_array(&object) {
                return Err(wrong_type(spec.name, "a number", &object));
            } else {
                arguments::value(spec, &object)?
            });
        }
        let ignore_index = if signature.ignore_index {
            Some(class(&required(kind, given, &names.ignore_index)?)?)
        } else {
            None
        };
        let reduction = required(kind, given, &names.reduction)?;
        Ok(Self {
            kind,
            loss: kind.loss(&values).map_err(to_py)?,
            values,
            weights,
            ignore_index,
            reduce: Reduce::of(&reduction, signature.batch_mean)?,
        })
    }

    /// A copy of the dictionary with plain Python numbers and flags, and tuples for lists.
    pub(super) fn plain(self, given: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let (py, kind, plain) = (given.py(), self.kind, given.copy()?);
        let names = Names::of(py, kind);
        let named = kind.specs().iter().zip(&names.specs);
        for ((spec, key), value) in named.zip(&self.values) {
            plain.set_item(key, to_object(py, spec.kind, value)?)?;
        }
        let named = kind.signature().weights.iter().zip(&names.weights);
        for ((&(name, shape), key), weight) in named.zip(&self.weights) {
            if let Some(weight) = weight {
                plain.set_item(key, weight.plain(name, shape)?)?;
            }
        }
        if kind.signature().ignore_index {
            plain.set_item(&names.ignore_index, self.ignore_index)?;
        }
        Ok(plain)
    }
}

fn required<'py>(
    kind: Kind,
    given: &Bound<'py, PyDict>,
    key: &Py<PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let key = key.bind(given.py());
    let missing = || PyValueError::new_err(format!("{} lacks the argument {key}", kind.name()));
    given.get_item(key)?.ok_or_else(missing)
}

fn may_be_weight(object: &Bound<'_, PyAny>) -> bool {
    is_array(object) || is_list(object)
}

fn class(object: &Bound<'_, PyAny>) -> PyResult<i64> {
    object.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            return PyValueError::new_err(format!("ignore_index must fit 64 bits, got {object}"));
        }
        wrong_type("ignore_index", "an integer", object)
    })
}

fn to_object<'py>(
    py: Python<'py>,
    kind: hyper::Kind,
    value: &Value,
) -> PyResult<Bound<'py, PyAny>> {
    match (kind, value) {
        (hyper::Kind::Choice(_) | hyper::Kind::Count(_), &Value::Number(x)) => {
            (x as u64).into_bound_py_any(py)
        }
        (_, Value::Number(x)) => x.into_bound_py_any(py),
        (_, Value::Optional(x)) => x.into_bound_py_any(py),
        (_, Value::Flag(flag)) => flag.into_bound_py_any(py),
        (_, Value::Word(word)) => word.into_bound_py_any(py),
        (_, Value::OptionalWord(word)) => word.into_bound_py_any(py),
        (_, Value::Numbers(numbers)) => numbers.into_bound_py_any(py),
        (_, Value::OptionalFirst(a, b)) => (a, b).into_bound_py_any(py),
    }
}
