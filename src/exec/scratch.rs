//! Memory for blocks that a thread works on: too large for a stack, which may be as small as 32 KiB
//! in a thread that somebody else has started, and too short-lived to be allocated for each use.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::numeric::float::Float;

/// A cache line, as two arrays that share one would slow each other down.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "used by its address")] [u8; LINE]);

const LINE: usize = 64;

/// Elements that are worked on at a time where arrays are loaded and stored: 4 KiB of `f32`, which
/// leaves room for several arrays in L1. Under Miri small arrays have several, as with
/// [`CHUNK`](crate::exec::pool::CHUNK).
pub(crate) const TILE: usize = if cfg!(miri) { 256 } else { 1024 };

thread_local! {
    /// Blocks that this thread has allocated and does not use now. Uses nest, so the last one given back is
    /// the first one taken: each depth of nesting keeps its own.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// `N` arrays of equal length, each aligned to a cache line. They hold whatever the thread has left
/// there: clearing them would cost more than the work on a short array.
pub(crate) struct Scratch<T, const N: usize> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Float, const N: usize> Scratch<T, N> {
    /// Arrays of `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            lines: take(N * Self::lines(len)),
            len,
            elements: PhantomData,
        }
    }

    /// The lines of one array.
    fn lines(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(LINE)
    }

    /// The arrays.
    pub(crate) fn arrays(&mut self) -> [&mut [T]; N] {
        let (len, each) = (self.len, Self::lines(self.len));
        let mut rest = self.lines.as_mut_slice();
        std::array::from_fn(|_| {
            let (lines, after) = std::mem::take(&mut rest).split_at_mut(each);
            rest = after;
            // SAFETY: `lines` are initialized bytes, borrowed exclusively, that `len` elements fit
            // in; `Float` is sealed to `f32` and `f64`, which every pattern of bits is a value of and
            // which are aligned within a line.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<T>(), len) }
        })
    }
}

impl<T, const N: usize> Drop for Scratch<T, N> {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.lines));
    }
}

/// At least `count` lines. Kernels call it once per block, and should not hold a copy of it.
#[inline(never)]
fn take(count: usize) -> Vec<Line> {
    // A thread that is ending has no list any more.
    let kept = FREE.try_with(|free| free.borrow_mut().pop());
    let mut lines = kept.ok().flatten().unwrap_or_default();
    if lines.len() < count {
        // The smaller one goes first: both are never there at once.
        drop(std::mem::take(&mut lines));
        lines = vec![Line([0; LINE]); count];
    }
    lines
}

#[inline(never)]
fn give(lines: Vec<Line>) {
    // As in `take`; the lines are then freed.
    let _ = FREE.try_with(|free| free.borrow_mut().push(lines));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<T: Float, const N: usize>(scratch: &mut Scratch<T, N>) -> [usize; N] {
        scratch.arrays().map(|array| array.as_ptr().addr())
    }

    #[test]
    fn arrays_are_aligned_and_apart() {
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
    fn memory_is_used_again() {
        let first = addresses(&mut Scratch::<f64, 2>::new(1000));
        assert_eq!(addresses(&mut Scratch::<f64, 2>::new(1000)), first);
        // Another type, and less of it.
        assert_eq!(addresses(&mut Scratch::<f32, 1>::new(10)), [first[0]]);
    }

    #[test]
    fn nested_uses_have_memory_of_their_own() {
        let mut outer = Scratch::<f64, 1>::new(100);
        outer.arrays()[0].fill(1.0);
        for _ in 0..3 {
            let mut inner = Scratch::<f64, 1>::new(200);
            inner.arrays()[0].fill(2.0);
        }
        assert!(outer.arrays()[0].iter().all(|&x| x == 1.0));
    }

    #[test]
    fn a_panic_gives_memory_back() {
        let first = addresses(&mut Scratch::<f64, 1>::new(100));
        let outcome = std::panic::catch_unwind(|| {
            let _scratch = Scratch::<f64, 1>::new(100);
            panic!("as it should");
        });
        assert!(outcome.is_err());
        assert_eq!(addresses(&mut Scratch::<f64, 1>::new(100)), first);
    }
}
