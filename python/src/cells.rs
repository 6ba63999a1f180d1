//! Checked arrays as the core computes on them.

use fastoptim::cells::Cells;
use fastoptim::float::Float;
use fastoptim::storage::Rounding;

use crate::array::{Address, Dtype};
use crate::parameter::slice_mut;

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
) -> Cells<'a, T> {
    // SAFETY: by this function's contract the elements are of this dtype (16-bit formats as their
    // bits), alive for `'a`, aligned, and had by nobody else.
    unsafe {
        match dtype.half() {
            Some(half) => Cells::half(half, slice_mut(data, len), rounding()),
            None => Cells::native(slice_mut(data, len)),
        }
    }
}

/// Numbers to be read alone.
///
/// # Safety
/// As for `written`, but others may read them too.
pub(crate) unsafe fn read<'a, T: Float>(dtype: Dtype, data: Address, len: usize) -> Cells<'a, T> {
    // SAFETY: as in `written`, but others may read the elements too: nobody writes them.
    unsafe {
        match dtype.half() {
            Some(half) => Cells::read_half(half, slice(data, len)),
            None => Cells::read(slice(data, len)),
        }
    }
}

/// # Safety
/// As for `read`, and `U` is the dtype.
unsafe fn slice<'a, U>(data: Address, len: usize) -> &'a [U] {
    if len == 0 {
        return &[];
    }
    // SAFETY: by this function's contract `len` elements of `U` are alive at `data` for `'a`,
    // aligned, and nobody writes them.
    unsafe { std::slice::from_raw_parts(data.0.cast(), len) }
}
