//! A parameter with its state, as the engine keeps it between steps.

use std::ops::Range;

use fastoptim::numeric::float::Float;
use fastoptim::optim::{Role, StateSpec};
use fastoptim::step::Progress;
use fastoptim::storage::view::{Raw, StorageView};
use fastoptim::storage::{Encoding, Noise, Rounding};
use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::memory::numpy::{Address, Dtype, Layout, numbers};
use crate::memory::slab::Slab;
use crate::memory::view::{self, elements};

/// How an optimizer keeps its moments, and how it rounds what is kept in fewer bits.
pub(crate) struct Storage {
    /// The encoding of the moments; that of the arithmetic where none is asked for.
    pub(crate) moments: Option<Encoding>,
    pub(crate) stochastic: bool,
    pub(crate) seed: u64,
}

impl Storage {
    /// The dtype of a state array beside a parameter of this dtype: that of `state_dtype` for
    /// moments, and that of the arithmetic for all others.
    pub(crate) fn of(&self, spec: &StateSpec, parameter: Dtype) -> Dtype {
        match (self.moments, spec.role) {
            (Some(encoding), Role::SecondMoment) => Dtype::Number(encoding.of_squares()),
            (Some(encoding), Role::FirstMoment) => Dtype::Number(encoding),
            _ => parameter.arithmetic(),
        }
    }

    /// The rounding of one array in one step; `buffer` is 0 for the parameter itself.
    pub(crate) fn rounding(&self, parameter: usize, buffer: usize, step: u64) -> Rounding {
        if self.stochastic {
            let noise = Noise::new(self.seed, parameter as u64, buffer as u64, step);
            Rounding::Stochastic(noise)
        } else {
            Rounding::Nearest
        }
    }
}

/// A piece of an allocation, as the memory of one array.
pub(crate) struct Piece {
    slab: Py<Slab>,
    offset: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Address,
    pub(crate) len: usize,
}

impl Piece {
    /// The array of this dtype and shape that starts at a byte of `slab`.
    pub(crate) fn new(
        slab: &Bound<'_, Slab>,
        offset: usize,
        dtype: Dtype,
        shape: &[usize],
    ) -> Self {
        Self {
            slab: slab.clone().unbind(),
            offset,
            dtype,
            shape: shape.to_vec(),
            data: slab.get().at(offset),
            len: shape.iter().product(),
        }
    }

    /// It as an array of NumPy, which holds the allocation and can be written.
    pub(crate) fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyUntypedArray>> {
        Slab::view(self.slab.bind(py), self.offset, self.dtype, &self.shape)
    }

    /// Which allocation it is a piece of.
    pub(crate) fn allocation(&self) -> usize {
        self.slab.as_ptr().addr()
    }

    /// The addresses of its bytes.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.data.0.addr();
        start..start + self.len * self.dtype.size()
    }
}

/// One state array of a parameter.
pub(crate) struct Slot {
    pub(crate) spec: StateSpec,
    pub(crate) numbers: Piece,
    /// One scale per block, where it is kept in 8 bits.
    pub(crate) scales: Option<Piece>,
    /// Whether a step has written it, or a load.
    pub(crate) started: bool,
}

impl Slot {
    /// The addresses of its bytes.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let scales = self.scales.iter().map(Piece::range);
        [self.numbers.range()].into_iter().chain(scales)
    }

    /// Its numbers as a rule sees them.
    ///
    /// # Safety
    /// It is alive for `'a`, and nobody else has it.
    pub(crate) unsafe fn view<'a, T: Float>(
        &self,
        rounding: impl FnOnce() -> Rounding,
    ) -> StorageView<'a, T> {
        let Piece {
            data, len, dtype, ..
        } = self.numbers;
        let rounding = || {
            if self.spec.stochastic_rounding {
                rounding()
            } else {
                Rounding::Nearest
            }
        };
        let encoding = view::encoding(dtype);
        let mut raw = Raw::new(encoding, data.0, len);
        if let Some(scales) = &self.scales {
            raw = raw.with_scales(elements(scales.data, scales.len));
        }
        // SAFETY: the dtype is that of the array; that it is alive and nobody else has it, nor its
        // scales, is this function's contract.
        unsafe { StorageView::from_raw(raw, view::rounding_of(encoding, rounding)) }
    }
}

pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) array: Py<PyAny>,
    pub(crate) layout: Layout,
    pub(crate) group: usize,
    pub(crate) progress: Progress,
    pub(crate) slots: Vec<Slot>,
}

impl Parameter {
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.spec.name == name)
    }

    /// Its memory, if it is still what was checked when it was added.
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        let name = &self.name;
        let object = self.array.bind(py);
        let (data, writable) = if let Some(found) = self.layout.recognize(object) {
            found
        } else {
            let array = numbers(&format!("params[{name:?}]"), object)?;
            if array.dtype != self.layout.dtype || array.shape != self.layout.shape {
                return Err(PyValueError::new_err(format!(
                    "params[{name:?}] is no longer {} of shape {:?}",
                    self.layout.dtype, self.layout.shape
                )));
            }
            (array.data, array.writable)
        };
        if Address(data) != self.layout.data {
            return Err(PyValueError::new_err(format!(
                "params[{name:?}] has moved in memory"
            )));
        }
        if !writable {
            return Err(PyValueError::new_err(format!(
                "params[{name:?}] is read-only"
            )));
        }
        Ok(())
    }

    /// Its numbers as a rule sees them.
    ///
    /// # Safety
    /// `check` has passed in this call, its array is alive for `'a`, and nobody else has it.
    pub(crate) unsafe fn view<'a, T: Float>(
        &self,
        rounding: impl FnOnce() -> Rounding,
    ) -> StorageView<'a, T> {
        let Layout {
            dtype, data, len, ..
        } = self.layout;
        // SAFETY: the layout is what `check` found the array to have still, so `len` elements of
        // `dtype` are at `data`, aligned; that they are alive for `'a` and nobody else has them is
        // this function's contract.
        unsafe { view::written(dtype, data, len, rounding) }
    }
}

/// # Safety
/// `len` elements of type `T` are alive at `data` for `'a`, aligned, and nobody else has them.
pub(crate) unsafe fn slice_mut<'a, T>(data: Address, len: usize) -> &'a mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: this function's contract is that of the slice, and an empty one was dealt with.
    unsafe { std::slice::from_raw_parts_mut(data.0.cast(), len) }
}
