//! The operations on a parameter and its gradient after the update, done block by block while both
//! are in the L1 cache.

use crate::exec::isa::Tier;
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::ops::lerp::Lerp;
use crate::storage::view::StorageView;

/// The operations after the update of one parameter.
#[derive(Debug)]
pub struct Epilogue<'a, T> {
    /// The moving average of the parameter, stored in the type used for computation, and its
    /// weight: `average += weight (p - average)`.
    pub average: Option<(StorageView<'a, T>, f64)>,
    /// The target of a copy of the parameter.
    pub copy: Option<StorageView<'a, T>>,
    /// The weight `w` of schedule-free parameters: the average and the copy use `p + w (z - p)`
    /// instead of `p`, where `z` is the first state array.
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
    /// Checks the targets.
    ///
    /// # Panics
    /// A target does not have `len` elements or is read-only, or the average is not stored in the
    /// type used for computation.
    pub(crate) fn check(&self, len: usize) {
        let average = self.average.iter().map(|(view, _)| view);
        for view in average.clone().chain(&self.copy) {
            assert_eq!(
                view.len(),
                len,
                "a target must have the length of its parameter"
            );
            assert!(view.is_writable(), "a target must be writable");
        }
        for view in average {
            assert!(
                view.is_native(),
                "an average must be stored in the type used for computation"
            );
        }
    }

    /// Updates the targets of the block that starts at `from`. `p` is the block of the parameter
    /// and `z` that of its first state array, at most [`TILE`] elements each.
    ///
    /// # Safety
    /// `check` has passed for at least `from + p.len()` elements, and no other code accesses these
    /// elements of the targets during the call.
    pub(crate) unsafe fn block(&self, from: usize, p: &[T], z: Option<&[T]>, tier: Tier) {
        // SAFETY: `follow` has the contract of this function, and `a` is as long as `p`.
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

    /// Moves the average towards `x` and writes `x` to the copy.
    ///
    /// # Safety
    /// `check` has passed for at least `from + x.len()` elements, and no other code accesses these
    /// elements of the targets during the call.
    unsafe fn follow(&self, from: usize, x: &[T], tier: Tier) {
        // SAFETY: `check` found the targets writable and long enough, and by this function's
        // contract no other code accesses these elements.
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
