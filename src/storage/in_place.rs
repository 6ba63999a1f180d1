//! In-place updates of ranges of an array.

use std::ops::Range;

use crate::exec::isa::Tier;
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::storage::view::StorageView;

impl<T: Float> StorageView<'_, T> {
    /// Calls `f` with the start and the elements of a range, which starts at a block: once and in
    /// place for a native array, otherwise tile by tile, with each tile loaded before and stored
    /// after the call.
    ///
    /// # Safety
    /// The range is inside the array, which is writable, and no other code accesses these elements
    /// during the call.
    pub(crate) unsafe fn update(
        &self,
        range: Range<usize>,
        tier: Tier,
        mut f: impl FnMut(usize, &mut [T]),
    ) {
        // SAFETY: by this function's contract the range is inside the writable array, and no other
        // code accesses its elements.
        if let Some(own) = unsafe { self.slice_mut(range.start, range.end) } {
            return f(range.start, own);
        }
        let mut scratch = Scratch::<T, 1>::new(TILE);
        let [tile] = scratch.arrays();
        let end = range.end;
        for at in range.step_by(TILE) {
            let tile = &mut tile[..TILE.min(end - at)];
            // SAFETY: as for `slice_mut`.
            unsafe {
                self.load(at, tile, tier);
                f(at, tile);
                self.store(at, tile, tier);
            }
        }
    }

    /// Calls `f` with the elements of a range of this array, as [`update`](Self::update) does, and
    /// with the same range of `other`.
    ///
    /// # Safety
    /// As for `update`. The range is also inside `other`, and no other code writes its elements
    /// during the call.
    pub(crate) unsafe fn update_by(
        &self,
        other: &StorageView<'_, T>,
        range: Range<usize>,
        tier: Tier,
        mut f: impl FnMut(&mut [T], &[T]),
    ) {
        let Range { start, end } = range;
        // SAFETY: by this function's contract the range is inside both arrays, this one is writable
        // and no other code accesses its elements, and no other code writes those of `other`.
        unsafe {
            if let Some(others) = other.slice(start, end) {
                return self.update(range, tier, |at, own| {
                    f(own, &others[at - start..][..own.len()]);
                });
            }
            let mut scratch = Scratch::<T, 1>::new(TILE);
            let [tile] = scratch.arrays();
            for at in range.step_by(TILE) {
                let tile = &mut tile[..TILE.min(end - at)];
                other.load(at, tile, tier);
                self.update(at..at + tile.len(), tier, |_, own| f(own, tile));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Half, Rounding};

    const N: usize = 2 * TILE + 3;

    /// Returns the bits of small integers in bfloat16, the upper half of float32.
    fn halves(shift: usize) -> Vec<u16> {
        let upper = |i| (((i + shift) % 100) as f32).to_bits() >> 16;
        (0..N).map(|i| upper(i) as u16).collect()
    }

    fn singles(shift: usize) -> Vec<f32> {
        (0..N).map(|i| ((i + shift) % 100) as f32).collect()
    }

    #[test]
    fn every_element_of_a_range_is_changed_once() {
        let range = TILE..N - 1;
        let expected = |i: usize| (i % 100) as f32 + if range.contains(&i) { 1.0 } else { 0.0 };
        let (mut half, mut single) = (halves(0), singles(0));
        let run = |view: StorageView<'_, f32>| {
            let add = |at: usize, x: &mut [f32]| {
                for (i, x) in (at..).zip(x) {
                    assert_eq!(*x, (i % 100) as f32);
                    *x += 1.0;
                }
            };
            // SAFETY: the range is inside the array, which is writable, and the view owns it.
            unsafe { view.update(range.clone(), Tier::Baseline, add) };
        };
        run(StorageView::half(Half::Bf16, &mut half, Rounding::Nearest));
        run(StorageView::native(&mut single));
        for i in 0..N {
            assert_eq!(single[i], expected(i));
            assert_eq!(u32::from(half[i]) << 16, expected(i).to_bits());
        }
    }

    #[test]
    fn every_element_is_paired_with_the_one_at_its_index() {
        let mut other = (halves(7), singles(7));
        for (own_half, other_half) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut half, mut single) = (halves(0), singles(0));
            let own = if own_half {
                StorageView::half(Half::Bf16, &mut half, Rounding::Nearest)
            } else {
                StorageView::native(&mut single)
            };
            let other = if other_half {
                StorageView::half(Half::Bf16, &mut other.0, Rounding::Nearest)
            } else {
                StorageView::native(&mut other.1)
            };
            let add = |a: &mut [f32], b: &[f32]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            // SAFETY: the range is inside both arrays, which are writable, and the views own them.
            unsafe { own.update_by(&other, 0..N, Tier::Baseline, add) };
            for i in 0..N {
                let sum = (i % 100 + (i + 7) % 100) as f32;
                let got = if own_half {
                    f32::from_bits(u32::from(half[i]) << 16)
                } else {
                    single[i]
                };
                assert_eq!(got, sum, "{i}");
            }
        }
    }
}
