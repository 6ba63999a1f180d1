//! The memory that a loss reads and writes: its input and, where it is requested, its gradient.

use std::marker::PhantomData;

use crate::error::Result;
use crate::exec::isa::{self, Tier};
use crate::exec::prefetch::prefetch;
use crate::loss::checks::require_len;
use crate::numeric::float::{Float, SQUARE};

/// The input of a loss and the memory of its gradient.
#[derive(Debug)]
pub enum Input<'a, T> {
    /// The input. No gradient is computed.
    Value(&'a [T]),
    /// The input, and the memory of the gradient.
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
    /// Their sum divided by this number of rows.
    BatchMean(usize),
    /// They are not reduced but written to this slice; the gradient is that of the sum.
    None(&'a mut [T]),
}

impl<T> Reduction<'_, T> {
    /// The divisor of the sum of the values, where `total` is the number or the weight of all
    /// items, and the factor of the gradient. They are NaN and 0 if there are no items to
    /// average over.
    pub(crate) fn scales(&self, total: f64, loss_scale: f64) -> [f64; 2] {
        match self {
            Self::Mean => mean_scales(total, loss_scale),
            Self::BatchMean(rows) => mean_scales(*rows as f64, loss_scale),
            Self::Sum | Self::None(_) => [1.0, loss_scale],
        }
    }
}

/// Divisor and factor of a mean.
fn mean_scales(total: f64, loss_scale: f64) -> [f64; 2] {
    if total == 0.0 {
        return [f64::NAN, 0.0];
    }
    [total, loss_scale / total]
}

/// A gradient of at least this many bytes is stored past the caches if it does not replace the
/// input: input, target and gradient together do not fit a cache of 32 MiB, and a processor would
/// read the lines of the gradient from memory before it overwrites them. MSE on two threads of
/// Zen 3 takes 0.77 times as long with 4 Mi elements, 0.9 with 2 Mi and 1 with 1 Mi; other
/// processors were not measured. Fewer in unit tests.
const STREAM: usize = if cfg!(test) { 1 << 16 } else { 16 << 20 };

/// The result of [`Buffers::finish`].
#[must_use]
pub(crate) struct Finish(bool);

impl Drop for Finish {
    fn drop(&mut self) {
        if self.0 {
            isa::fence();
        }
    }
}

/// [`Input`] and [`Reduction`] as the tasks of one call share them: by pointers, because in place
/// the gradient is in the memory of the input. A kernel reads a piece, computes, and writes it.
///
/// Bounds are checked once per piece, which costs little compared to its computation.
#[derive(Clone, Copy)]
pub(crate) struct Buffers<'a, T> {
    x: *const T,
    gradient: Option<*mut T>,
    /// Whether [`write_once`](Self::write_once) stores past the caches.
    streams: bool,
    len: usize,
    values: Option<*mut T>,
    items: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointers come from a shared and from mutable borrows of elements that are `Send` and
// `Sync`; such borrows can be sent.
unsafe impl<T: Send + Sync> Send for Buffers<'_, T> {}
// SAFETY: the contract of `new` is that no two tasks touch the same element, so that tasks which
// share the pointers do not race.
unsafe impl<T: Send + Sync> Sync for Buffers<'_, T> {}

impl<'a, T: Float> Buffers<'a, T> {
    /// An input of `len` elements, and the values of `items` if they are not reduced.
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
            Reduction::Mean | Reduction::BatchMean(_) | Reduction::Sum => None,
        };
        // SAFETY: the contract of this function includes that of `further`: no two tasks touch the
        // same element.
        let buffers = unsafe { Self::further(input, len) }?;
        Ok(Self {
            values,
            items,
            ..buffers
        })
    }

    /// A further input of a loss, whose values belong to the first.
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
            streams: false,
            len,
            values: None,
            items: 0,
            lifetime: PhantomData,
        })
    }

    /// Stores the gradient past the caches in [`write_once`](Self::write_once) if the tier of the
    /// kernel can, and the gradient is large and does not replace the input.
    ///
    /// # Safety
    /// Each task holds the result of [`finish`](Self::finish) while it writes, and does not read
    /// what it has written.
    pub(crate) unsafe fn written_once(self, tier: Tier) -> Self {
        let fits = |gradient: *mut T| {
            !self.is_in_place()
                && gradient.addr().is_multiple_of(isa::STREAMED)
                && self.len >= STREAM / size_of::<T>()
        };
        Self {
            streams: tier.streams() && self.gradient.is_some_and(fits),
            ..self
        }
    }

    /// Whether the gradient replaces the input.
    pub(crate) fn is_in_place(&self) -> bool {
        self.gradient
            .is_some_and(|gradient| std::ptr::eq(gradient, self.x))
    }

    /// Whether a gradient is requested.
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
        // SAFETY: n <= N elements from `start` are in bounds by this function's own contract, and
        // no other task writes them, by the contract of `new`.
        unsafe { load(self.x.add(start), n, pad) }
    }

    /// Prefetches `n` elements from `start` and the memory of their gradient, unless it is stored
    /// past the caches. They may be out of bounds.
    #[inline(always)]
    pub(crate) fn prefetch(&self, start: usize, n: usize) {
        prefetch(self.x.wrapping_add(start), n);
        if let Some(gradient) = self.gradient
            && !self.streams
        {
            prefetch(gradient.wrapping_add(start), n);
        }
    }

    /// One element.
    #[inline(always)]
    pub(crate) fn read_one(&self, index: usize) -> T {
        assert!(index < self.len, "an element is in bounds");
        // SAFETY: in bounds, and no other task writes it, by the contract of `new`.
        unsafe { self.x.add(index).read() }
    }

    /// Reads up to `N` short rows transposed: `tile[j][r]` belongs to class `j` of row `first + r`.
    #[inline(always)]
    pub(crate) fn read_transposed<const N: usize>(
        &self,
        first: usize,
        n: usize,
        tile: &mut [[T; N]],
    ) {
        let classes = tile.len();
        assert!(n <= N, "a tile holds N rows");
        self.check(first * classes, n * classes);
        let mut r = 0;
        while r + SQUARE <= n && classes >= SQUARE {
            for j in squares(classes) {
                let mut square = [[T::ZERO; SQUARE]; SQUARE];
                for k in 0..SQUARE {
                    let start = (first + r + k) * classes + j;
                    // SAFETY: the row is one of the `n` rows, which are in bounds, and has `SQUARE`
                    // classes from `j`; no other task writes them, by the contract of `new`.
                    square[k] = unsafe { load(self.x.add(start), SQUARE, T::ZERO) };
                }
                let square = T::transpose(square);
                for k in 0..SQUARE {
                    tile[j + k][r..r + SQUARE].copy_from_slice(&square[k]);
                }
            }
            r += SQUARE;
        }
        // Classes outside: a loop over two or three classes takes longer to start than to run.
        for j in 0..classes {
            for r in r..n {
                let start = (first + r) * classes;
                // SAFETY: `n * classes` elements from `first * classes` are in bounds, and no other
                // task writes them, by the contract of `new`.
                tile[j][r] = unsafe { self.x.add(start + j).read() };
            }
        }
    }

    /// Writes the gradient of the rows that [`read_transposed`](Self::read_transposed) read, if it
    /// is requested.
    #[inline(always)]
    pub(crate) fn write_transposed<const N: usize>(&self, first: usize, n: usize, tile: &[[T; N]]) {
        let classes = tile.len();
        assert!(n <= N, "a tile holds N rows");
        self.check(first * classes, n * classes);
        let Some(gradient) = self.gradient else {
            return;
        };
        let mut r = 0;
        while r + SQUARE <= n && classes >= SQUARE {
            for j in squares(classes) {
                let mut square = [[T::ZERO; SQUARE]; SQUARE];
                for k in 0..SQUARE {
                    square[k].copy_from_slice(&tile[j + k][r..r + SQUARE]);
                }
                let square = T::transpose(square);
                for k in 0..SQUARE {
                    let start = (first + r + k) * classes + j;
                    // SAFETY: as in `read_transposed`.
                    unsafe { store(gradient.add(start), SQUARE, &square[k]) };
                }
            }
            r += SQUARE;
        }
        for j in 0..classes {
            for r in r..n {
                let start = (first + r) * classes;
                // SAFETY: as in `read_transposed`.
                unsafe { gradient.add(start + j).write(tile[j][r]) };
            }
        }
    }

    /// Writes the gradient of `n` elements from `start`, if it is requested.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, start: usize, n: usize, piece: &[T; N]) {
        self.check(start, n);
        assert!(n <= N, "a piece holds N elements");
        // SAFETY: n <= N elements from `start` are in bounds.
        unsafe { self.write_unchecked(start, n, piece) }
    }

    /// As [`write`](Self::write), past the caches if [`written_once`](Self::written_once) has
    /// decided so.
    #[inline(always)]
    pub(crate) fn write_once<const N: usize>(&self, start: usize, n: usize, piece: &[T; N]) {
        let whole = n == N && (start * size_of::<T>()).is_multiple_of(isa::STREAMED);
        match self.gradient {
            Some(gradient) if self.streams && whole => {
                self.check(start, n);
                // SAFETY: N elements from `start` are in bounds and aligned, as the first element
                // and the distance are. No other task touches them, by the contract of `new`.
                // `written_once` found a tier of this processor that streams. By its contract, this
                // task does not read them and ends with the fence of `finish`.
                unsafe { isa::stream(gradient.add(start), piece) }
            }
            _ => self.write(start, n, piece),
        }
    }

    /// Completes the writes past the caches when the result is dropped, so that other threads see
    /// them.
    pub(crate) fn finish(&self) -> Finish {
        Finish(self.streams)
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
            // SAFETY: n <= N elements from `start` are in bounds by this function's own contract,
            // and no other task touches them, by the contract of `new`.
            unsafe { store(gradient.add(start), n, piece) }
        }
    }

    /// The gradient of `n` elements from `start`; empty if it is not requested.
    ///
    /// # Safety
    /// While the result lives, nothing else reads or writes these elements of the gradient, nor of
    /// an input in the same memory.
    #[inline(always)]
    #[expect(clippy::mut_from_ref)]
    pub(crate) unsafe fn gradient(&self, start: usize, n: usize) -> &mut [T] {
        self.check(start, n);
        match self.gradient {
            // SAFETY: in bounds. No other task touches these elements, by the contract of `new`,
            // and this task has no other access to them, by the contract of this
            // function.
            Some(gradient) => unsafe { std::slice::from_raw_parts_mut(gradient.add(start), n) },
            None => &mut [],
        }
    }

    /// Writes the values of `n` items from `start`, if they are not reduced.
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
                // SAFETY: `start + i` is in bounds, and no other task writes this value, by the
                // contract of `new`.
                unsafe { values.add(start + i).write(T::from_f64(value.to_f64())) }
            }
        }
    }
}

/// The first classes of squares that cover rows of at least [`SQUARE`] classes. The last one
/// overlaps the one before.
#[inline(always)]
fn squares(classes: usize) -> impl Iterator<Item = usize> {
    let last = classes - SQUARE;
    (0..classes).step_by(SQUARE).map(move |j| j.min(last))
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
        // SAFETY: n elements can be written, `piece` holds N >= n, and what a shared reference
        // points to is not written, so the two do not overlap.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(input: Input<'_, f32>, tier: Tier) -> bool {
        let len = input.elements().len();
        // SAFETY: there are no tasks.
        unsafe {
            let buffers = Buffers::further(input, len).expect("equal lengths");
            buffers.written_once(tier).streams
        }
    }

    #[test]
    fn only_large_and_aligned_gradients_apart_from_the_input_are_stored_past_the_caches() {
        let n = STREAM / size_of::<f32>();
        let x = vec![0.0_f32; n];
        let mut memory = vec![0.0_f32; n + 2 * isa::STREAMED];
        let first = memory.as_ptr().align_offset(isa::STREAMED);
        for tier in Tier::supported() {
            assert!(!streams(Input::Value(&x), tier));
            assert!(!streams(
                Input::InPlace(&mut memory[first..first + n]),
                tier
            ));
            let shorter = &mut memory[first..first + n - 1];
            assert!(!streams(Input::Gradient(&x[1..], shorter), tier));
            for offset in 0..8 {
                let start = first + offset;
                let found = streams(Input::Gradient(&x, &mut memory[start..start + n]), tier);
                assert_eq!(found, tier.streams() && offset % 4 == 0);
            }
        }
    }

    #[test]
    fn elements_are_written_once_where_they_belong() {
        let n = STREAM / size_of::<f32>() + 37;
        let x = vec![0.0_f32; n];
        let cases =
            (0..5).flat_map(|offset| Tier::supported().into_iter().map(move |t| (offset, t)));
        for (offset, tier) in cases {
            let mut memory = vec![-1.0_f32; n + 4 * isa::STREAMED];
            let start = memory.as_ptr().align_offset(isa::STREAMED) + offset;
            let input = Input::Gradient(&x, &mut memory[start..start + n]);
            // SAFETY: there is one task, this one, which reads after the fence only.
            let buffers = unsafe {
                let buffers = Buffers::further(input, n).expect("equal lengths");
                buffers.written_once(tier)
            };
            let finish = buffers.finish();
            for from in (0..n).step_by(16) {
                let piece: [f32; 16] = std::array::from_fn(|i| (from + i) as f32);
                buffers.write_once(from, 16.min(n - from), &piece);
            }
            drop(finish);
            let expected = (0..n).map(|i| i as f32);
            assert!(
                memory[start..start + n].iter().copied().eq(expected),
                "{offset}"
            );
            assert!(
                memory[..start]
                    .iter()
                    .chain(&memory[start + n..])
                    .all(|&x| x == -1.0)
            );
        }
    }
}
