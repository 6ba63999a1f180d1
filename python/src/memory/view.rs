//! Checked arrays as the core computes on them.

use std::ptr;

use fastoptim::numeric::float::Float;
use fastoptim::storage::precision::{AnyPair, AnyView};
use fastoptim::storage::view::{Raw, StorageView};
use fastoptim::storage::{Encoding, Rounding};

use crate::memory::numpy::{Address, Array, Dtype, with_float};

/// Numbers that may be written, with the rounding of those that it applies to.
///
/// # Safety
/// `len` elements of this dtype are alive at `data` for `'a`, aligned, and nobody else has them.
pub(crate) unsafe fn written<'a, T: Float>(
    dtype: Dtype,
    data: Address,
    len: usize,
    rounding: impl FnOnce() -> Rounding,
) -> StorageView<'a, T> {
    let encoding = encoding(dtype);
    let raw = Raw::new(encoding, data.0, len);
    // SAFETY: by this function's contract the elements are of this dtype, alive for `'a`, aligned,
    // and had by nobody else.
    unsafe { StorageView::from_raw(raw, rounding_of(encoding, rounding)) }
}

/// Numbers to be read alone.
///
/// # Safety
/// As for `written`, but others may read them too.
pub(crate) unsafe fn read<'a, T: Float>(
    dtype: Dtype,
    data: Address,
    len: usize,
) -> StorageView<'a, T> {
    // SAFETY: by this function's contract the elements are of this dtype, alive for `'a`, aligned,
    // and written by nobody.
    unsafe { StorageView::read_from_raw(Raw::new(encoding(dtype), data.0, len)) }
}

/// How numbers of this dtype are stored.
///
/// # Panics
/// It is one of integers: every array that is computed on has been checked for one of numbers.
pub(crate) fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::Number(encoding) => encoding,
        _ => unreachable!("{dtype} is not computed on"),
    }
}

/// The rounding of what is stored in this encoding, which is only made where it applies.
pub(crate) fn rounding_of(encoding: Encoding, rounding: impl FnOnce() -> Rounding) -> Rounding {
    if encoding.is_rounded() {
        rounding()
    } else {
        Rounding::Nearest
    }
}

/// The numbers of an array, to be read alone.
///
/// # Safety
/// The array outlives `'a`, and nobody writes it.
pub(crate) unsafe fn read_array<'a, T: Float>(array: &Array<'_>) -> StorageView<'a, T> {
    // SAFETY: `Array::new` checked the layout; by this function's contract the array outlives `'a`,
    // and nobody writes it.
    unsafe { read(array.dtype, Address(array.data), array.len) }
}

/// The numbers of an array, to be written and rounded to nearest.
///
/// # Safety
/// The array can be written and outlives `'a`, and nobody else has it.
pub(crate) unsafe fn written_array<'a, T: Float>(array: &Array<'_>) -> StorageView<'a, T> {
    // SAFETY: `Array::new` checked the layout; by this function's contract the array outlives `'a`,
    // can be written, and nobody else has it.
    unsafe {
        let (data, len) = (Address(array.data), array.len);
        written(array.dtype, data, len, || Rounding::Nearest)
    }
}

/// An array to be read alone, as what it is computed in.
///
/// # Safety
/// As for `read_array`.
pub(crate) unsafe fn any_read<'a>(array: &Array<'_>) -> AnyView<'a> {
    // SAFETY: this function's contract.
    with_float!(array.dtype.arithmetic(), T => unsafe { read_array::<T>(array) }.into())
}

/// An array to be written, as what it is computed in.
///
/// # Safety
/// As for `written_array`.
pub(crate) unsafe fn any_written<'a>(array: &Array<'_>) -> AnyView<'a> {
    // SAFETY: this function's contract.
    with_float!(array.dtype.arithmetic(), T => unsafe { written_array::<T>(array) }.into())
}

/// An array to be read and one to be written, as what the first is computed in.
///
/// # Safety
/// As for `read_array` and `written_array`.
pub(crate) unsafe fn any_pair<'a>(read: &Array<'_>, written: &Array<'_>) -> AnyPair<'a> {
    // SAFETY: this function's contract.
    with_float!(read.dtype.arithmetic(), T => unsafe {
        (read_array::<T>(read), written_array::<T>(written)).into()
    })
}

/// The place of `len` elements: a pointer with the reach of the address, which is that of the whole
/// allocation where it comes from NumPy.
pub(crate) fn elements<U>(data: Address, len: usize) -> *mut [U] {
    ptr::slice_from_raw_parts_mut(data.0.cast(), len)
}
