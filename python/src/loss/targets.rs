//! The target of a call: integers per row, or numbers.

use std::ops::Range;

use fastoptim::loss::signature::Role;
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::arrays::{Rows, goes_with, require_shape, types_beside};
use super::integers;
use crate::memory::numpy::{Array, Dtype};

/// A target.
pub(super) enum Target<'py> {
    /// The integers that were copied, and the memory that they came from.
    Integers {
        integers: Vec<i64>,
        range: Option<Range<usize>>,
    },
    Numbers(Array<'py>),
}

impl<'py> Target<'py> {
    /// The numbers, if it has numbers.
    pub(super) fn numbers(&self) -> Option<&Array<'py>> {
        match self {
            Self::Numbers(array) => Some(array),
            Self::Integers { .. } => None,
        }
    }

    /// The memory of its array.
    pub(super) fn range(&self) -> Option<Range<usize>> {
        match self {
            Self::Numbers(array) => Some(array.range()),
            Self::Integers { range, .. } => range.clone(),
        }
    }
}

/// Checks the target of an input.
pub(super) fn of<'py>(
    name: &str,
    role: Role,
    object: &Bound<'py, PyAny>,
    input: &Array<'py>,
    rows: &Rows,
) -> PyResult<Target<'py>> {
    let is_integral = role != Role::ElementTarget;
    if is_integral && let Some(integers) = integers::scalar(name, object)? {
        if !rows.outer.is_empty() {
            return Err(PyValueError::new_err(format!(
                "{name} must have shape {:?}, got the number {object}",
                rows.outer
            )));
        }
        return Ok(Target::Integers {
            integers,
            range: None,
        });
    }
    let refuse = |found: &dyn std::fmt::Display| {
        let beside = types_beside(input.dtype);
        let (expected, remedy) = match role {
            Role::ClassTarget => ("class indices of an integer type".into(), "numpy.int64"),
            Role::ClassOrProbabilityTarget => (
                format!("class indices of an integer type, or probabilities in {beside}"),
                "numpy.int64",
            ),
            Role::RowTarget => (format!("of an integer type, or {beside}"), "numpy.int64"),
            _ => (beside, "input.dtype"),
        };
        Err(PyTypeError::new_err(format!(
            "{name} must be {expected}, got {found}: {name}.astype({remedy}) converts it"
        )))
    };
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        let descr = array.dtype();
        if Dtype::of(&descr).is_none() {
            return refuse(&descr);
        }
    }
    let array = Array::new(name, object)?;
    if array.dtype.is_integer() {
        if !is_integral {
            return refuse(&array.dtype);
        }
        require_shape(name, &array, &rows.outer)?;
        let integers = integers::of(name, &array)?;
        let integers = integers.expect("an array of integers");
        let range = Some(array.range());
        return Ok(Target::Integers { integers, range });
    }
    if role == Role::ClassTarget || !goes_with(array.dtype, input.dtype) {
        return refuse(&array.dtype);
    }
    let per_row = role == Role::RowTarget;
    let shape = if per_row { &rows.outer } else { &input.shape };
    require_shape(name, &array, shape)?;
    Ok(Target::Numbers(array))
}
