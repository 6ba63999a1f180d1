//! What a loss reads and writes: its input, and its gradient where one is wanted.

use std::marker::PhantomData;

use crate::error::Result;
use crate::exec::isa;
use crate::loss::require_len;
use crate::numeric::float::Float;

/// The input of a loss and the place of its gradient.
#[derive(Debug)]
pub enum Input<'a, T> {
    /// The value alone.
    Value(&'a [T]),
    /// The gradient goes to the second.
    Gradient(&'a [T], &'a mut [T]),
    /// The gradient replaces the input.
    InPlace(&'a mut [T]),
}

impl<T> Input<'_, T> {
    /// The input itself.
    pub(crate) fn elements(&self) -> &[T] {
        match self {
            Self::Value(x) | Self::Gradient(x, _) => x,
            Self::InPlace(x) => x,
        }
    }
}

/// How the values of the elements or rows become one.
#[derive(Debug)]
pub enum Reduction<'a, T> {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// They stay apart and are written here; the gradient is that of the sum.
    None(&'a mut [T]),
}

impl<T> Reduction<'_, T> {
    /// What the sum of the values is divided by where all items together count for `total`, and
    /// the factor of the gradient: NaN and 0 where nothing counts.
    pub(crate) fn scales(&self, total: f64, loss_scale: f64) -> [f64; 2] {
        match self {
            Self::Mean if total == 0.0 => [f64::NAN, 0.0],
            Self::Mean => [total, loss_scale / total],
            Self::Sum | Self::None(_) => [1.0, loss_scale],
        }
    }
}

/// [`Input`] and [`Reduction`] as the tasks of one call share them: by pointers, because in place
/// the gradient and the input are one. A kernel reads a piece, computes, and writes it.
///
/// Bounds are checked once per piece, which costs next to nothing beside computing it.
#[derive(Clone, Copy)]
pub(crate) struct Buffers<'a, T> {
    x: *const T,
    gradient: Option<*mut T>,
    len: usize,
    values: Option<*mut T>,
    items: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointers stand for a shared and for mutable borrows of elements that are `Send` and
// `Sync`, all of which can be sent.
unsafe impl<T: Send + Sync> Send for Buffers<'_, T> {}
// SAFETY: who calls `new` promises that no two tasks touch the same element, so that sharing the
// pointers makes no race.
unsafe impl<T: Send + Sync> Sync for Buffers<'_, T> {}

impl<'a, T: Float> Buffers<'a, T> {
    /// An input of `len` elements, and the values of `items` where they stay apart.
    ///
    /// # Safety
    /// While tasks run in parallel, no element and no value is touched by two of them.
    ///
    /// # Errors
    /// The input, the gradient or the values have another length.
    pub(crate) unsafe fn new(
        input: Input<'a, T>,
        len: usize,
        reduction: &'a mut Reduction<'_, T>,
        items: usize,
    ) -> Result<Self> {
        let values = match reduction {
            Reduction::None(values) => {
                require_len("the values", values.len(), items)?;
                Some(values.as_mut_ptr())
            }
            Reduction::Mean | Reduction::Sum => None,
        };
        // SAFETY: the caller promises for all elements what `further` asks for those of its input.
        let buffers = unsafe { Self::further(input, len) }?;
        Ok(Self {
            values,
            items,
            ..buffers
        })
    }

    /// One more input of a loss whose values go with another.
    ///
    /// # Safety
    /// While tasks run in parallel, no element is touched by two of them.
    ///
    /// # Errors
    /// The input or the gradient has another length.
    pub(crate) unsafe fn further(input: Input<'a, T>, len: usize) -> Result<Self> {
        require_len("the input", input.elements().len(), len)?;
        let (x, gradient) = match input {
            Input::Value(x) => (x.as_ptr(), None),
            Input::Gradient(x, gradient) => {
                require_len("the gradient", gradient.len(), len)?;
                (x.as_ptr(), Some(gradient.as_mut_ptr()))
            }
            Input::InPlace(x) => {
                let pointer = x.as_mut_ptr();
                (pointer.cast_const(), Some(pointer))
            }
        };
        Ok(Self {
            x,
            gradient,
            len,
            values: None,
            items: 0,
            lifetime: PhantomData,
        })
    }

    /// Whether a gradient is wanted.
    #[inline(always)]
    pub(crate) fn has_gradient(&self) -> bool {
        self.gradient.is_some()
    }

    /// Checks that `n` elements from `start` are in bounds.
    ///
    /// # Panics
    /// They are not.
    #[inline(always)]
    pub(crate) fn check(&self, start: usize, n: usize) {
        check_bounds(start, n, self.len);
    }

    /// `n` elements from `start`, and `pad` for the rest.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, start: usize, n: usize, pad: T) -> [T; N] {
        self.check(start, n);
        assert!(n <= N, "a piece holds N elements");
        // SAFETY: n <= N elements from `start` are in bounds.
        unsafe { self.read_unchecked(start, n, pad) }
    }

    /// [`read`](Self::read) for kernels that check the bounds of many pieces at once.
    ///
    /// # Safety
    /// `n <= N` elements from `start` are in bounds.
    #[inline(always)]
    pub(crate) unsafe fn read_unchecked<const N: usize>(
        &self,
        start: usize,
        n: usize,
        pad: T,
    ) -> [T; N] {
        // SAFETY: n <= N elements from `start` are in bounds by this function's own contract, and no
        // other task writes them, as the caller of `new` promised.
        unsafe { load(self.x.add(start), n, pad) }
    }

    /// Asks for `n` elements from `start`, and for the place of their gradient. They may lie beyond
    /// the end.
    #[inline(always)]
    pub(crate) fn prefetch(&self, start: usize, n: usize) {
        for i in (0..n).step_by(64 / size_of::<T>()) {
            isa::prefetch(self.x.wrapping_add(start + i));
            if let Some(gradient) = self.gradient {
                isa::prefetch(gradient.wrapping_add(start + i));
            }
        }
    }

    /// One element.
    #[inline(always)]
    pub(crate) fn read_one(&self, index: usize) -> T {
        assert!(index < self.len, "an element is in bounds");
        // SAFETY: in bounds, and no other task writes it, as the caller of `new` promised.
        unsafe { self.x.add(index).read() }
    }

    /// Up to a group of short rows, turned: `tile[j][r]` belongs to class `j` of row `first + r`.
    #[inline(always)]
    pub(crate) fn read_turned<const N: usize>(&self, first: usize, n: usize, tile: &mut [[T; N]]) {
        let classes = tile.len();
        assert!(n <= N, "a tile holds N rows");
        self.check(first * classes, n * classes);
        for r in 0..n {
            let start = (first + r) * classes;
            for j in 0..classes {
                // SAFETY: `n * classes` elements from `first * classes` are in bounds, and no other
                // task writes them, as the caller of `new` promised.
                tile[j][r] = unsafe { self.x.add(start + j).read() };
            }
        }
    }

    /// The gradient of what [`read_turned`](Self::read_turned) read, where one is wanted.
    #[inline(always)]
    pub(crate) fn write_turned<const N: usize>(&self, first: usize, n: usize, tile: &[[T; N]]) {
        let classes = tile.len();
        if self.has_gradient() {
            // SAFETY: nothing else is read or written before `gradient` is dropped.
            let gradient = unsafe { self.gradient(first * classes, n * classes) };
            for r in 0..n {
                for j in 0..classes {
                    gradient[r * classes + j] = tile[j][r];
                }
            }
        }
    }

    /// The gradient of `n` elements from `start`, where one is wanted.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, start: usize, n: usize, piece: &[T; N]) {
        self.check(start, n);
        assert!(n <= N, "a piece holds N elements");
        // SAFETY: n <= N elements from `start` are in bounds.
        unsafe { self.write_unchecked(start, n, piece) }
    }

    /// [`write`](Self::write) for kernels that check the bounds of many pieces at once.
    ///
    /// # Safety
    /// `n <= N` elements from `start` are in bounds.
    #[inline(always)]
    pub(crate) unsafe fn write_unchecked<const N: usize>(
        &self,
        start: usize,
        n: usize,
        piece: &[T; N],
    ) {
        if let Some(gradient) = self.gradient {
            // SAFETY: n <= N elements from `start` are in bounds by this function's own contract, and
            // no other task touches them, as the caller of `new` promised.
            unsafe { store(gradient.add(start), n, piece) }
        }
    }

    /// The gradient of `n` elements from `start`; empty where none is wanted.
    ///
    /// # Safety
    /// While the result lives, nothing else reads or writes these elements of the gradient, nor of
    /// an input that is in the same place.
    #[inline(always)]
    #[expect(clippy::mut_from_ref)]
    pub(crate) unsafe fn gradient(&self, start: usize, n: usize) -> &mut [T] {
        self.check(start, n);
        match self.gradient {
            // SAFETY: in bounds, and the caller has these elements alone: in this task by its own
            // promise, among all tasks by that to `new`.
            Some(gradient) => unsafe { std::slice::from_raw_parts_mut(gradient.add(start), n) },
            None => &mut [],
        }
    }

    /// The values of `n` items from `start`, where they stay apart.
    #[inline(always)]
    pub(crate) fn write_values<V: Float, const N: usize>(
        &self,
        start: usize,
        n: usize,
        piece: &[V; N],
    ) {
        if let Some(values) = self.values {
            check_bounds(start, n, self.items);
            for (i, &value) in piece[..n].iter().enumerate() {
                // SAFETY: `start + i` is in bounds, and no other task writes this value, as the
                // caller of `new` promised.
                unsafe { values.add(start + i).write(T::from_f64(value.to_f64())) }
            }
        }
    }
}

/// # Panics
/// `n` elements from `start` are not all among the first `len`.
#[inline(always)]
fn check_bounds(start: usize, n: usize, len: usize) {
    assert!(n <= len && start <= len - n, "a piece is in bounds");
}

/// The first `n` of a piece, and `pad` for the rest. A whole piece is a copy of constant size,
/// which stays in registers.
///
/// # Safety
/// `n <= N` elements can be read.
#[inline(always)]
unsafe fn load<T: Copy, const N: usize>(from: *const T, n: usize, pad: T) -> [T; N] {
    if n == N {
        // SAFETY: `n = N` elements can be read; an array is as aligned as its elements.
        return unsafe { from.cast::<[T; N]>().read() };
    }
    let mut piece = [pad; N];
    // SAFETY: n elements can be read, and `piece`, which is new, holds N >= n.
    unsafe { std::ptr::copy_nonoverlapping(from, piece.as_mut_ptr(), n) };
    piece
}

/// # Safety
/// `n <= N` elements can be written.
#[inline(always)]
unsafe fn store<T: Copy, const N: usize>(to: *mut T, n: usize, piece: &[T; N]) {
    if n == N {
        // SAFETY: `n = N` elements can be written; an array is as aligned as its elements.
        unsafe { to.cast::<[T; N]>().write(*piece) }
    } else {
        // SAFETY: n elements can be written, `piece` holds N >= n, and what a shared reference points
        // to is not written, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), to, n) }
    }
}

/// A piece of a shared slice, padded with zeros.
#[inline(always)]
pub(crate) fn piece<T: Float, const N: usize>(from: &[T], start: usize, n: usize) -> [T; N] {
    let from = &from[start..start + n];
    assert!(n <= N, "a piece holds N elements");
    // SAFETY: `from` has n elements, and n <= N.
    unsafe { load(from.as_ptr(), n, T::ZERO) }
}
