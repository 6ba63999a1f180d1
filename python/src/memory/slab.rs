//! Memory allocated by this module, and arrays that are views of it.

use std::alloc::{self, Layout};
use std::ffi::c_int;
use std::ptr::{NonNull, null_mut};

use numpy::npyffi::{self, NPY_ARRAY_WRITEABLE, PY_ARRAY_API, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::memory::numpy::{Address, Dtype};
use crate::memory::pages::request_huge_pages;

/// The size of a cache line and of the widest vector register in bytes.
const ALIGNMENT: usize = 64;

/// An allocation that starts on a cache line. It is the base of arrays that are views of it. No
/// array owns the memory, so none can be resized, and the memory is freed with the last array.
#[pyclass(module = "fastoptim._core", frozen)]
pub(crate) struct Slab {
    block: NonNull<u8>,
    layout: Layout,
    start: Address,
    len: usize,
}

// SAFETY: the allocation is not bound to a thread, and `Slab` does not access it after `zeros`.
unsafe impl Send for Slab {}
// SAFETY: as for `Send`.
unsafe impl Sync for Slab {}

impl Slab {
    /// Allocates `len` bytes of 0.
    pub(crate) fn zeros(len: usize) -> PyResult<Self> {
        let refuse = || PyMemoryError::new_err(format!("cannot allocate {len} bytes"));
        let size = len.checked_add(ALIGNMENT).ok_or_else(refuse)?;
        // The allocator writes zeros to an allocation with a larger alignment. Without one it
        // returns pages of the system, which are already 0 and take no memory until they are used.
        let layout = Layout::from_size_align(size, 1).map_err(|_| refuse())?;
        // SAFETY: the size is not 0.
        let block = unsafe { alloc::alloc_zeroed(layout) };
        let block = NonNull::new(block).ok_or_else(refuse)?;
        let padding = block.addr().get().wrapping_neg() % ALIGNMENT;
        let start = block.as_ptr().wrapping_add(padding);
        request_huge_pages(start, len);
        Ok(Self {
            block,
            layout,
            start: Address(start),
            len,
        })
    }

    /// Returns the address of the byte at `offset`.
    pub(crate) fn at(&self, offset: usize) -> Address {
        Address(self.start.0.wrapping_add(offset))
    }

    /// Returns an array that is a view of the bytes from `offset`.
    pub(crate) fn view<'py>(
        this: &Bound<'py, Self>,
        offset: usize,
        dtype: Dtype,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let py = this.py();
        let slab = this.get();
        let elements = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        let end = elements
            .and_then(|n| n.checked_mul(dtype.size()))
            .and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > slab.len) || !offset.is_multiple_of(dtype.size()) {
            return Err(PyValueError::new_err(format!(
                "{dtype} of shape {shape:?} at byte {offset} does not fit in {} bytes",
                slab.len
            )));
        }
        let mut dims: Vec<npy_intp> = shape.iter().map(|&dim| dim as npy_intp).collect();
        let descr = dtype.descr(py)?;
        // SAFETY: NumPy checks the rank, `dims` has the stated length, and the checks above found
        // the bytes inside the slab and aligned. The call takes ownership of the descriptor.
        let array = unsafe {
            let array = PY_ARRAY_API.PyArray_NewFromDescr(
                py,
                npyffi::get_type_object(py, npyffi::NpyTypes::PyArray_Type),
                descr.into_dtype_ptr(),
                dims.len() as c_int,
                dims.as_mut_ptr(),
                null_mut(),
                slab.at(offset).0.cast(),
                NPY_ARRAY_WRITEABLE,
                null_mut(),
            );
            Bound::from_owned_ptr_or_err(py, array)?
        };
        // SAFETY: the array is new and has no base. The call takes ownership of a reference to the
        // slab, which keeps the memory alive as long as the array.
        let status = unsafe {
            PY_ARRAY_API.PyArray_SetBaseObject(
                py,
                array.as_ptr().cast(),
                this.clone().into_any().into_ptr(),
            )
        };
        if status < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array.cast_into()?)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the block comes from `alloc_zeroed` with this layout. Every view holds a
        // reference to the slab, so there are no views any more.
        unsafe { alloc::dealloc(self.block.as_ptr(), self.layout) };
    }
}

/// Return an array of `size` zeros that starts on a cache line and does not own its memory.
#[pyfunction]
fn aligned_zeros<'py>(
    py: Python<'py>,
    size: &Bound<'py, PyAny>,
    dtype: &Bound<'py, PyArrayDescr>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let dtype = Dtype::of(dtype)
        .ok_or_else(|| PyTypeError::new_err(format!("dtype is not supported, got {dtype}")))?;
    if size.lt(0)? {
        return Err(PyValueError::new_err(format!(
            "size must be >= 0, got {size}"
        )));
    }
    let refuse = || PyMemoryError::new_err(format!("cannot allocate {size} numbers of {dtype}"));
    let size: usize = size.extract().map_err(|_| refuse())?;
    let bytes = size.checked_mul(dtype.size()).ok_or_else(refuse)?;
    let slab = Bound::new(py, Slab::zeros(bytes)?)?;
    Slab::view(&slab, 0, dtype, &[size])
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(aligned_zeros, module)?)
}
