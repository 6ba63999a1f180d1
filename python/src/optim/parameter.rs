//! A parameter with its state, as stored between steps.

use std::ops::Range;

use fastoptim::numeric::float::Float;
use fastoptim::optim::{Role, StateSpec};
use fastoptim::step::{PART, Progress, StepContext};
use fastoptim::storage::view::{Raw, StorageView};
use fastoptim::storage::{Encoding, Noise, Rounding};
use numpy::PyUntypedArray;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::memory::numpy::{Address, Dtype, Layout, numbers};
use crate::memory::slab::Slab;
use crate::memory::view::{self, elements};

/// The encoding of an optimizer's moments, and the rounding of arrays in low precision.
pub(crate) struct Storage {
    /// The encoding of the moments, or `None` for that of the type of computation.
    pub(crate) moments: Option<Encoding>,
    pub(crate) stochastic: bool,
    pub(crate) seed: u64,
}

impl Storage {
    /// Returns the dtype of a state array of a parameter of this dtype: `state_dtype` for moments,
    /// and the type of computation for all other arrays.
    pub(crate) fn of(&self, spec: &StateSpec, parameter: Dtype) -> Dtype {
        match (self.moments, spec.role) {
            (Some(encoding), Role::SecondMoment) => Dtype::Number(encoding.of_squares()),
            (Some(encoding), Role::FirstMoment) => Dtype::Number(encoding),
            _ => parameter.arithmetic(),
        }
    }

    /// Returns the rounding of one array in one step. `buffer` is 0 for the parameter itself.
    pub(crate) fn rounding(&self, parameter: usize, buffer: usize, step: u64) -> Rounding {
        if self.stochastic {
            let noise = Noise::new(self.seed, parameter as u64, buffer as u64, step);
            Rounding::Stochastic(noise)
        } else {
            Rounding::Nearest
        }
    }
}

/// The memory of one array: a piece of an allocation of this library, or memory that a front end
/// keeps alive.
pub(crate) struct Piece {
    slab: Option<(Py<Slab>, usize)>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Address,
    pub(crate) len: usize,
}

impl Piece {
    /// Creates the array of this dtype and shape that starts at a byte of `slab`.
    pub(crate) fn new(
        slab: &Bound<'_, Slab>,
        offset: usize,
        dtype: Dtype,
        shape: &[usize],
    ) -> Self {
        Self {
            slab: Some((slab.clone().unbind(), offset)),
            ..Self::elsewhere(slab.get().at(offset), dtype, shape)
        }
    }

    /// Creates the array of this dtype and shape at an address that other code keeps alive.
    pub(crate) fn elsewhere(data: Address, dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            slab: None,
            dtype,
            shape: shape.to_vec(),
            data,
            len: shape.iter().product(),
        }
    }

    /// Returns a writable NumPy array, which holds a reference to the allocation.
    pub(crate) fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyUntypedArray>> {
        let (slab, offset) = self.slab.as_ref().ok_or_else(|| {
            PyRuntimeError::new_err("the array has its memory from somewhere else")
        })?;
        Slab::view(slab.bind(py), *offset, self.dtype, &self.shape)
    }

    /// Returns an identifier of the allocation, or 0 if it is not one of this library.
    pub(crate) fn allocation(&self) -> usize {
        let slab = self.slab.as_ref();
        slab.map_or(0, |(slab, _)| slab.as_ptr().addr())
    }

    /// Returns the range of its addresses.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.data.0.addr();
        start..start + self.len * self.dtype.size()
    }
}

/// One state array of a parameter.
pub(crate) struct Slot {
    pub(crate) spec: &'static StateSpec,
    pub(crate) numbers: Piece,
    /// One scale per block, if the array is stored in 8 bits. Boxed, as most arrays have none and
    /// a step reads the slots of all parameters.
    pub(crate) scales: Option<Box<Piece>>,
    /// Whether a step or a load has written it.
    pub(crate) started: bool,
}

impl Slot {
    /// Returns whether this is its name. Steps compare names several times for each parameter, and
    /// mostly the same string.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        std::ptr::eq(self.spec.name, name) || self.spec.name == name
    }

    /// Returns the range of its addresses.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let scales = self.scales.iter().map(|scales| scales.range());
        [self.numbers.range()].into_iter().chain(scales)
    }

    /// Returns the view for a rule.
    ///
    /// # Safety
    /// The array outlives `'a`, and no other code accesses it during `'a`.
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
        // SAFETY: the dtype is that of the array. By this function's contract it outlives `'a` with
        // its scales, and no other code accesses them.
        unsafe { StorageView::from_raw(raw, view::rounding_of(encoding, rounding)) }
    }
}

/// The part of a parameter that this process updates, and whose state it has.
pub(crate) struct Part {
    /// The first element.
    pub(crate) start: usize,
    /// The shape: that of the parameter if the part is whole.
    pub(crate) shape: Vec<usize>,
}

impl Part {
    /// Returns the part with these elements of a parameter, if it is one.
    pub(crate) fn of(layout: &Layout, elements: &Range<usize>) -> Option<Self> {
        let &Range { start, end } = elements;
        let whole = start == 0 && end == layout.len;
        let fits = start <= end && end <= layout.len;
        let starts = start == end || start.is_multiple_of(PART);
        (fits && starts).then(|| Self {
            start,
            shape: match end - start {
                _ if whole => layout.shape.clone(),
                // A shape of no dimensions would have one element.
                0 => vec![0; layout.shape.len().max(1)],
                len => vec![len],
            },
        })
    }
}

pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) array: Py<PyAny>,
    pub(crate) layout: Layout,
    /// `None` if this process has the whole parameter.
    pub(crate) part: Option<Part>,
    pub(crate) group: usize,
    pub(crate) progress: Progress,
    pub(crate) slots: Vec<Slot>,
}

impl Parameter {
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.is_named(name))
    }

    /// Returns the state arrays of these specs. Mostly those are all state arrays, in order.
    pub(crate) fn slots_of(&self, specs: &'static [StateSpec]) -> impl Iterator<Item = &Slot> {
        specs.iter().enumerate().filter_map(|(index, spec)| {
            let next = self.slots.get(index);
            let next = next.filter(|slot| std::ptr::eq(slot.spec, spec));
            next.or_else(|| self.slot(spec.name))
        })
    }

    /// Returns the context in the next step, which uses the state arrays of these specs.
    pub(crate) fn context(&self, specs: &'static [StateSpec]) -> StepContext {
        let fresh = !self.slots_of(specs).any(|slot| slot.started);
        self.progress.context(fresh)
    }

    /// Returns the first element of the part of this process.
    pub(crate) fn start(&self) -> usize {
        self.part.as_ref().map_or(0, |part| part.start)
    }

    /// Returns the shape of the part of this process.
    pub(crate) fn part_shape(&self) -> &[usize] {
        let part = self.part.as_ref();
        part.map_or(&self.layout.shape, |part| &part.shape)
    }

    /// Returns the number of elements of the part of this process.
    pub(crate) fn part_len(&self) -> usize {
        match &self.part {
            Some(part) => part.shape.iter().product(),
            None => self.layout.len,
        }
    }

    /// Checks that the array still has the layout that it had when it was added.
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

    /// Returns the view of the part of this process for a rule.
    ///
    /// # Safety
    /// `check` has passed in this call, the array outlives `'a`, and no other code accesses it
    /// during `'a`.
    pub(crate) unsafe fn view<'a, T: Float>(
        &self,
        rounding: impl FnOnce() -> Rounding,
    ) -> StorageView<'a, T> {
        let Layout { dtype, data, .. } = self.layout;
        let start = Address(data.0.wrapping_add(self.start() * dtype.size()));
        // SAFETY: `check` found that the array still has this layout, and the part is inside it, so
        // `start` points to `part_len` aligned elements of `dtype`. By this function's contract
        // they outlive `'a`, and no other code accesses them.
        unsafe { view::written(dtype, start, self.part_len(), rounding) }
    }
}

/// # Safety
/// `data` points to `len` aligned and initialized elements of type `T` that outlive `'a`, and no
/// other code accesses them during `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(data: Address, len: usize) -> &'a mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the contract of this function is that of the slice, and the empty slice is handled
    // above.
    unsafe { std::slice::from_raw_parts_mut(data.0.cast(), len) }
}
