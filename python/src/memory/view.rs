//! Conversion of checked arrays to views of the core.

use std::ptr;

use fastoptim::numeric::float::Float;
use fastoptim::storage::precision::{AnyPair, AnyView};
use fastoptim::storage::view::{Raw, StorageView};
use fastoptim::storage::{Encoding, Rounding};

use crate::memory::numpy::{Address, Array, Dtype, with_float};

/// Creates a writable view. `rounding` is called only for encodings that round.
///
/// # Safety
/// `data` points to `len` aligned and initialized elements of this dtype for `'a`, and no other
/// code accesses them during `'a`.
pub(crate) unsafe fn written<'a, T: Float>(
    dtype: Dtype,
    data: Address,
    len: usize,
    rounding: impl FnOnce() -> Rounding,
) -> StorageView<'a, T> {
    let encoding = encoding(dtype);
    let raw = Raw::new(encoding, data.0, len);
    // SAFETY: by this function's contract the elements have this dtype, are aligned and valid for
    // `'a`, and no other code accesses them.
    unsafe { StorageView::from_raw(raw, rounding_of(encoding, rounding)) }
}

/// Creates a read-only view.
///
/// # Safety
/// As for [`written`], except that other code may read the elements during `'a`.
#[inline]
pub(crate) unsafe fn read<'a, T: Float>(
    dtype: Dtype,
    data: Address,
    len: usize,
) -> StorageView<'a, T> {
    // SAFETY: by this function's contract the elements have this dtype, are aligned and valid for
    // `'a`, and no other code writes them.
    unsafe { StorageView::read_from_raw(Raw::new(encoding(dtype), data.0, len)) }
}

/// Returns the encoding of numbers of this dtype.
///
/// # Panics
/// The dtype is int32 or int64. The checks of arguments rule that out.
#[inline]
pub(crate) fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::Number(encoding) => encoding,
        _ => unreachable!("{dtype} is not computed on"),
    }
}

/// Returns the rounding of an encoding. `rounding` is called only if the encoding rounds.
pub(crate) fn rounding_of(encoding: Encoding, rounding: impl FnOnce() -> Rounding) -> Rounding {
    if encoding.is_rounded() {
        rounding()
    } else {
        Rounding::Nearest
    }
}

/// Creates a read-only view of an array.
///
/// # Safety
/// The array outlives `'a`, and no other code writes it during `'a`.
pub(crate) unsafe fn read_array<'a, T: Float>(array: &Array<'_>) -> StorageView<'a, T> {
    // SAFETY: `Array::new` checked the layout. By this function's contract the array outlives `'a`,
    // and no other code writes it.
    unsafe { read(array.dtype, Address(array.data), array.len) }
}

/// Creates a writable view of an array, with rounding to nearest.
///
/// # Safety
/// The array is writable and outlives `'a`, and no other code accesses it during `'a`.
pub(crate) unsafe fn written_array<'a, T: Float>(array: &Array<'_>) -> StorageView<'a, T> {
    // SAFETY: `Array::new` checked the layout. By this function's contract the array is writable
    // and outlives `'a`, and no other code accesses it.
    unsafe {
        let (data, len) = (Address(array.data), array.len);
        written(array.dtype, data, len, || Rounding::Nearest)
    }
}

/// Creates a read-only view of an array in its type of computation.
///
/// # Safety
/// As for [`read_array`].
pub(crate) unsafe fn any_read<'a>(array: &Array<'_>) -> AnyView<'a> {
    // SAFETY: `read_array` has the contract of this function.
    with_float!(array.dtype.arithmetic(), T => unsafe { read_array::<T>(array) }.into())
}

/// Creates a writable view of an array in its type of computation.
///
/// # Safety
/// As for [`written_array`].
pub(crate) unsafe fn any_written<'a>(array: &Array<'_>) -> AnyView<'a> {
    // SAFETY: `written_array` has the contract of this function.
    with_float!(array.dtype.arithmetic(), T => unsafe { written_array::<T>(array) }.into())
}

/// Creates views of an array to read and an array to write in the type of computation of the first.
///
/// # Safety
/// As for [`read_array`] and [`written_array`].
pub(crate) unsafe fn any_pair<'a>(read: &Array<'_>, written: &Array<'_>) -> AnyPair<'a> {
    // SAFETY: `read_array` and `written_array` have the contract of this function.
    with_float!(read.dtype.arithmetic(), T => unsafe {
        (read_array::<T>(read), written_array::<T>(written)).into()
    })
}

/// Returns a pointer to `len` elements with the provenance of the address. For an address from
/// NumPy that is the whole allocation.
pub(crate) fn elements<U>(data: Address, len: usize) -> *mut [U] {
    ptr::slice_from_raw_parts_mut(data.0.cast(), len)
}
