//! Integers that are used as addresses: class indices and labels.
//!
//! Other threads may write an array while a loss reads it, because NumPy arrays have no locks. With
//! numbers the result is then that of some mixture of old and new ones. Integers become addresses, so
//! a call copies them once, and checks and uses the copy.

use fastoptim::loss::Target;

use crate::memory::numpy::{Array, Dtype};

/// The integers of an array, copied.
pub(super) enum Integers {
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl Integers {
    /// Copies an array, or returns `None` if its elements are not int32 or int64.
    pub(super) fn of(array: &Array<'_>) -> Option<Self> {
        match array.dtype {
            // SAFETY: the elements are `i32`.
            Dtype::I32 => Some(Self::I32(unsafe { copied(array) })),
            // SAFETY: the elements are `i64`.
            Dtype::I64 => Some(Self::I64(unsafe { copied(array) })),
            _ => None,
        }
    }

    pub(super) fn widened(self) -> Vec<i64> {
        match self {
            Self::I32(integers) => integers.into_iter().map(i64::from).collect(),
            Self::I64(integers) => integers,
        }
    }
}

/// The elements of an array, each read once: the elements that are checked are those that are used,
/// even if another thread writes the array afterwards.
///
/// # Safety
/// `I` is an integer type, and that of the elements.
unsafe fn copied<I: Copy>(array: &Array<'_>) -> Vec<I> {
    let mut copy = Vec::with_capacity(array.len);
    let data = array.data.cast_const().cast::<I>();
    // SAFETY: `array` holds its object, so `len` elements of this type can be read; the new memory
    // has room for them, and every bit pattern is an integer. The bytes are copied from a pointer and
    // not from a slice, which would assert that no other thread writes them.
    unsafe {
        data.copy_to_nonoverlapping(copy.as_mut_ptr(), array.len);
        copy.set_len(array.len);
    }
    copy
}

/// The target of a loss: its `integers`, or numbers.
///
/// # Safety
/// Without integers, `T` is the type of the elements, the array outlives `'a`, and no other call
/// writes it during that time.
pub(super) unsafe fn target_of<'a, T>(
    target: &Array<'_>,
    integers: Option<&'a Integers>,
) -> Target<'a, T> {
    match integers {
        Some(Integers::I32(classes)) => Target::I32(classes),
        Some(Integers::I64(classes)) => Target::I64(classes),
        // SAFETY: by this function's contract the elements are of `T`, outlive `'a`, and are not
        // written by another call.
        None => Target::Numbers(unsafe { target.slice() }),
    }
}
