//! Checked arrays as the core computes on them.

use std::ptr;

use fastoptim::numeric::float::Float;
use fastoptim::storage::Rounding;
use fastoptim::storage::view::{Raw, StorageView};

use crate::memory::numpy::{Address, Dtype};

/// Numbers that may be written, and are rounded where they are kept in 16 bits.
///
/// # Safety
/// `len` elements of this dtype, which is computed in `T`, are alive at `data` for `'a`, aligned,
/// and nobody else has them.
pub(crate) unsafe fn written<'a, T: Float>(
    dtype: Dtype,
    data: Address,
    len: usize,
    rounding: impl FnOnce() -> Rounding,
) -> StorageView<'a, T> {
    let rounding = dtype.half().map_or(Rounding::Nearest, |_| rounding());
    // SAFETY: by this function's contract the elements are of this dtype, alive for `'a`, aligned,
    // and had by nobody else.
    unsafe { StorageView::from_raw(raw(dtype, data, len), rounding) }
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
    unsafe { StorageView::read_from_raw(raw(dtype, data, len)) }
}

/// The elements of an array of this dtype, which is computed in `T`.
fn raw<T: Float>(dtype: Dtype, data: Address, len: usize) -> Raw<T> {
    match dtype.half() {
        Some(half) => Raw::Half(half, elements(data, len)),
        None => Raw::Native(elements(data, len)),
    }
}

/// The place of `len` elements: a pointer with the reach of the address, which is that of the whole
/// allocation where it comes from NumPy.
pub(crate) fn elements<U>(data: Address, len: usize) -> *mut [U] {
    ptr::slice_from_raw_parts_mut(data.0.cast(), len)
}
