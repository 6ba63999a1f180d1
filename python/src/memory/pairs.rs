//! Pairs of arrays from two sequences, such as parameters and gradients.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::memory::inflight;
use crate::memory::numpy::{Array, Dtype, check_disjoint, floats, numbers};

/// The dtypes that a pair may have.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Dtypes {
    /// Both float32 or both float64.
    Full,
    /// The same dtype of parameters for both.
    Any,
    /// First float32 or float64; second the same, or a 16-bit format if the first is float32.
    Narrower,
    /// First any dtype of parameters; second the same, or a 16-bit format if the first is float32.
    Gradients,
}

/// One of the two sequences.
pub(crate) struct Side<'a, 'py> {
    /// The name of the sequence in error messages.
    pub(crate) label: &'a str,
    pub(crate) arrays: &'a [Bound<'py, PyAny>],
    pub(crate) written: bool,
}

impl<'a, 'py> Side<'a, 'py> {
    pub(crate) fn read(label: &'a str, arrays: &'a [Bound<'py, PyAny>]) -> Self {
        Self {
            label,
            arrays,
            written: false,
        }
    }

    pub(crate) fn written(label: &'a str, arrays: &'a [Bound<'py, PyAny>]) -> Self {
        Self {
            label,
            arrays,
            written: true,
        }
    }
}

/// Checked pairs of arrays with equal shapes. Written arrays share no memory with other arrays.
pub(crate) struct Pairs<'py> {
    pub(crate) arrays: Vec<(Array<'py>, Array<'py>)>,
    written: [bool; 2],
}

impl<'py> Pairs<'py> {
    /// Checks the first array of each pair, then the second against the first. Skips pairs whose
    /// second array is `None`. Error messages identify arrays by name, or by index if there are no
    /// names.
    pub(crate) fn new(
        dtypes: Dtypes,
        names: Option<&[String]>,
        first: Side<'_, 'py>,
        second: Side<'_, 'py>,
    ) -> PyResult<Self> {
        if first.arrays.len() != second.arrays.len() {
            return Err(PyValueError::new_err(format!(
                "{} has {} arrays for {} parameters",
                second.label,
                second.arrays.len(),
                first.arrays.len()
            )));
        }
        let mut arrays = Vec::with_capacity(first.arrays.len());
        let mut labels = Vec::with_capacity(first.arrays.len());
        for (index, (a, b)) in first.arrays.iter().zip(second.arrays).enumerate() {
            let label = [first.label, second.label].map(|side| {
                match names.and_then(|names| names.get(index)) {
                    Some(name) => format!("{side}[{name:?}]"),
                    None => format!("{side}[{index}]"),
                }
            });
            let a = match dtypes {
                Dtypes::Any | Dtypes::Gradients => numbers(&label[0], a)?,
                Dtypes::Full | Dtypes::Narrower => floats(&label[0], a)?,
            };
            if first.written {
                a.require_writable(&label[0])?;
            }
            if b.is_none() {
                continue;
            }
            let b = Array::new(&label[1], b)?;
            let narrower = a.dtype == Dtype::F32 && b.dtype.is_half();
            let mixed = matches!(dtypes, Dtypes::Narrower | Dtypes::Gradients);
            let dtype = if mixed && narrower { b.dtype } else { a.dtype };
            b.require_match(&label[1], dtype, &a.shape)?;
            if second.written {
                b.require_writable(&label[1])?;
            }
            arrays.push((a, b));
            labels.push(label);
        }
        let (mut written, mut read) = (Vec::new(), Vec::new());
        for ([a_label, b_label], (a, b)) in labels.iter().zip(&arrays) {
            for (side, label, array) in [(&first, a_label, a), (&second, b_label, b)] {
                let ranges = if side.written {
                    &mut written
                } else {
                    &mut read
                };
                ranges.push((label.as_str(), array.range()));
            }
        }
        check_disjoint(&written, &read)?;
        Ok(Self {
            arrays,
            written: [first.written, second.written],
        })
    }

    /// Registers the memory of all arrays.
    pub(crate) fn enter(&self) -> PyResult<inflight::Guard> {
        let (mut written, mut read) = (Vec::new(), Vec::new());
        for (a, b) in &self.arrays {
            for (array, writes) in [a, b].into_iter().zip(self.written) {
                let ranges = if writes { &mut written } else { &mut read };
                ranges.push(array.range());
            }
        }
        inflight::enter(written, read)
    }
}
