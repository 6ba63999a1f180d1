//! Named arguments of optimizers and losses, read from Python objects.

use fastoptim::hyper::{Kind, Spec, Value};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyString};

use crate::memory::items::Items;

/// Converts an object to the type of an argument. The core checks the range.
pub(crate) fn value(spec: &Spec, object: &Bound<'_, PyAny>) -> PyResult<Value> {
    let wrong = |expected: &str| wrong_type(spec.name, expected, object);
    let number = |item: &Bound<'_, PyAny>, expected: &str| -> PyResult<f64> {
        if let Ok(x) = item.cast_exact::<PyFloat>() {
            return Ok(x.value());
        }
        if item.is_instance_of::<PyBool>() || item.is_instance_of::<PyString>() {
            return Err(wrong(expected));
        }
        item.extract().map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(item.py()) {
                return PyValueError::new_err(format!("{} is too large", spec.name));
            }
            wrong(expected)
        })
    };
    let optional = |item: &Bound<'_, PyAny>| -> PyResult<Option<f64>> {
        if item.is_none() {
            Ok(None)
        } else {
            number(item, "a number").map(Some)
        }
    };
    let items = |expected: &str| -> PyResult<Items<Bound<'_, PyAny>>> {
        object.extract().map_err(|_| wrong(expected))
    };
    Ok(match spec.kind {
        Kind::Number(_) => Value::Number(number(object, "a number")?),
        Kind::Optional(_) => Value::Optional(optional(object)?),
        Kind::Count(_) | Kind::Choice(_) => Value::Number(number(object, "a whole number")?),
        Kind::Numbers(ranges) => {
            let expected = format!("{} numbers", ranges.len());
            let items = items(&expected)?;
            if items.len() != ranges.len() {
                return Err(wrong(&expected));
            }
            let numbers = items.iter().map(|item| number(item, "a number"));
            Value::Numbers(numbers.collect::<PyResult<_>>()?)
        }
        Kind::OptionalFirst(_) => {
            let expected = "a pair of numbers, the first of which may be None";
            let items = items(expected)?;
            let [a, b] = items.as_slice() else {
                return Err(wrong(expected));
            };
            Value::OptionalFirst(optional(a)?, number(b, "a number")?)
        }
        Kind::Flag => Value::Flag(
            object
                .cast::<PyBool>()
                .map_err(|_| wrong("a bool"))?
                .is_true(),
        ),
        Kind::Word(_) => Value::Word(object.extract().map_err(|_| wrong("a string"))?),
        Kind::OptionalWord(_) => {
            Value::OptionalWord(object.extract().map_err(|_| wrong("a string or None"))?)
        }
    })
}

/// Returns the error for an argument of the wrong type.
pub(crate) fn wrong_type(name: &str, expected: &str, object: &Bound<'_, PyAny>) -> PyErr {
    let shown = object.repr().map_or_else(|_| "?".into(), |r| r.to_string());
    PyTypeError::new_err(format!("{name} must be {expected}, got {shown}"))
}
