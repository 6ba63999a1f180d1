//! What is done with a parameter and its gradient once the rule has run, block by block while both
//! are in the L1 cache.

use crate::exec::isa::Tier;
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::ops::lerp::Lerp;
use crate::storage::view::StorageView;

/// What is left to do after an update.
#[derive(Debug)]
pub struct Epilogue<'a, T> {
    /// The moving average of the parameter, kept as it is computed in, and how much of the difference
    /// it moves by.
    pub average: Option<(StorageView<'a, T>, f64)>,
    /// Where a copy goes.
    pub copy: Option<StorageView<'a, T>>,
    /// Of schedule-free parameters, how far towards their first state array the iterate lies that
    /// the average and the copy take.
    pub iterate: Option<f64>,
    /// Whether the gradient is set to 0.
    pub clear_gradient: bool,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self {
            average: None,
            copy: None,
            iterate: None,
            clear_gradient: false,
        }
    }
}

impl<T: Float> Epilogue<'_, T> {
    /// # Panics
    /// A target has not `len` elements or cannot be written, or the average is kept otherwise than it
    /// is computed in.
    pub(crate) fn check(&self, len: usize) {
        let average = self.average.iter().map(|(view, _)| view);
        for view in average.clone().chain(&self.copy) {
            assert_eq!(view.len(), len, "a target has the length of its parameter");
            assert!(view.is_writable(), "a target can be written");
        }
        for view in average {
            assert!(view.is_native(), "an average is kept as it is computed in");
        }
    }

    /// Finishes the block from `from` on, where the parameter is `p` and its first state array `z`.
    /// At most [`TILE`] elements.
    ///
    /// # Safety
    /// `check` has passed for at least `from + p.len()` elements, and nobody else has these elements
    /// of the targets meanwhile.
    pub(crate) unsafe fn block(&self, from: usize, p: &[T], z: Option<&[T]>, tier: Tier) {
        // SAFETY: what `follow` asks for is this function's contract, and as many elements are given.
        unsafe {
            if let (Some(weight), Some(z)) = (self.iterate, z) {
                let mut scratch = Scratch::<T, 1>::new(TILE);
                let [tile] = scratch.arrays();
                let a = &mut tile[..p.len()];
                a.copy_from_slice(p);
                let weight = T::from_f64(weight);
                tier.run(Lerp { a, x: z, weight });
                self.follow(from, a, tier);
            } else {
                self.follow(from, p, tier);
            }
        }
    }

    /// Moves the average towards `x` and copies it.
    ///
    /// # Safety
    /// `check` has passed for at least `from + x.len()` elements, and nobody else has these elements
    /// of the targets meanwhile.
    unsafe fn follow(&self, from: usize, x: &[T], tier: Tier) {
        // SAFETY: `check` found the targets writable and long enough, and nobody else has these
        // elements by this function's contract.
        unsafe {
            if let Some((average, weight)) = &self.average
                && let Some(a) = average.slice_mut(from, from + x.len())
            {
                let weight = T::from_f64(*weight);
                tier.run(Lerp { a, x, weight });
            }
            if let Some(copy) = &self.copy {
                copy.store(from, x, tier);
            }
        }
    }
}
