//! Scratch memory of a thread. It is too large for the stack, which may be as small as 32 KiB in
//! threads of the caller, and used too briefly to be allocated for each use.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::numeric::float::Float;

/// A cache line. Arrays start on cache lines of their own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "used by its address")] [u8; LINE]);

const LINE: usize = 64;

/// Elements per tile: 4 KiB of `f32`, so that several arrays fit in the L1 cache. Smaller under
/// Miri, so that small arrays have several tiles.
pub(crate) const TILE: usize = if cfg!(miri) { 256 } else { 1024 };

thread_local! {
    /// Allocations of this thread that are not in use, as a stack: uses nest, so each depth of
    /// nesting reuses its own allocation.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// `N` arrays of equal length, each aligned to a cache line. Their contents are unspecified:
/// clearing them would cost more than the work on a short array.
pub(crate) struct Scratch<T, const N: usize> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Float, const N: usize> Scratch<T, N> {
    /// Allocates arrays of `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            lines: take(N * Self::lines(len)),
            len,
            elements: PhantomData,
        }
    }

    /// Returns the number of lines of one array.
    fn lines(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(LINE)
    }

    /// Borrows the arrays.
    pub(crate) fn arrays(&mut self) -> [&mut [T]; N] {
        let (len, each) = (self.len, Self::lines(self.len));
        let mut rest = self.lines.as_mut_slice();
        std::array::from_fn(|_| {
            let (lines, after) = std::mem::take(&mut rest).split_at_mut(each);
            rest = after;
            // SAFETY: `lines` are initialized bytes, borrowed exclusively, with room for `len`
            // elements. `Float` is sealed to `f32` and `f64`, for which every bit pattern is valid
            // and whose alignment is less than that of a line.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<T>(), len) }
        })
    }
}

impl<T, const N: usize> Drop for Scratch<T, N> {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.lines));
    }
}

/// Returns at least `count` lines. Not inlined, so that kernels do not contain copies of it.
#[inline(never)]
fn take(count: usize) -> Vec<Line> {
    // The list of an ending thread has been destroyed.
    let free = FREE.try_with(|free| free.borrow_mut().pop());
    let mut lines = free.ok().flatten().unwrap_or_default();
    if lines.len() < count {
        // Free the smaller allocation first, so that both never exist at the same time.
        drop(std::mem::take(&mut lines));
        lines = vec![Line([0; LINE]); count];
    }
    lines
}

#[inline(never)]
fn give(lines: Vec<Line>) {
    // If the list has been destroyed, as in `take`, the lines are freed.
    let _ = FREE.try_with(|free| free.borrow_mut().push(lines));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<T: Float, const N: usize>(scratch: &mut Scratch<T, N>) -> [usize; N] {
        scratch.arrays().map(|array| array.as_ptr().addr())
    }

    #[test]
    fn arrays_are_aligned_and_do_not_overlap() {
        for len in [0, 1, 16, 17, 1000] {
            let mut scratch = Scratch::<f32, 3>::new(len);
            for (array, x) in scratch.arrays().into_iter().zip([1.0, 2.0, 3.0]) {
                array.fill(x);
            }
            for (array, x) in scratch.arrays().into_iter().zip([1.0, 2.0, 3.0]) {
                assert_eq!(array.len(), len);
                assert!(array.as_ptr().addr().is_multiple_of(LINE));
                assert!(array.iter().all(|&y| y == x));
            }
        }
    }

    #[test]
    fn memory_is_reused() {
        let first = addresses(&mut Scratch::<f64, 2>::new(1000));
        assert_eq!(addresses(&mut Scratch::<f64, 2>::new(1000)), first);
        // With another type and a smaller size.
        assert_eq!(addresses(&mut Scratch::<f32, 1>::new(10)), [first[0]]);
    }

    #[test]
    fn nested_uses_have_separate_memory() {
        let mut outer = Scratch::<f64, 1>::new(100);
        outer.arrays()[0].fill(1.0);
        for _ in 0..3 {
            let mut inner = Scratch::<f64, 1>::new(200);
            inner.arrays()[0].fill(2.0);
        }
        assert!(outer.arrays()[0].iter().all(|&x| x == 1.0));
    }

    #[test]
    fn memory_is_returned_on_panic() {
        let first = addresses(&mut Scratch::<f64, 1>::new(100));
        let outcome = std::panic::catch_unwind(|| {
            let _scratch = Scratch::<f64, 1>::new(100);
            panic!("the intended panic");
        });
        assert!(outcome.is_err());
        assert_eq!(addresses(&mut Scratch::<f64, 1>::new(100)), first);
    }
}
