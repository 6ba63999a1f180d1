//! What is done with a parameter and its gradient once the rule has run, block by block while both
//! are in the L1 cache.

use crate::average::Lerp;
use crate::cells::Cells;
use crate::float::Float;
use crate::isa::Tier;
use crate::prepare::STAGE;
use crate::scratch::Scratch;

/// What is left to do after an update.
#[derive(Debug)]
pub struct Finish<'a, T> {
    /// The moving average of the parameter, and how much of the difference it moves by.
    pub average: Option<(Cells<'a, T>, f64)>,
    /// Where a copy goes.
    pub copy: Option<Cells<'a, T>>,
    /// Of schedule-free parameters, how far towards their first state array the iterate lies that
    /// the average and the copy take.
    pub iterate: Option<f64>,
    /// Whether the gradient is set to 0.
    pub clear_gradient: bool,
}

impl<T> Default for Finish<'_, T> {
    fn default() -> Self {
        Self {
            average: None,
            copy: None,
            iterate: None,
            clear_gradient: false,
        }
    }
}

impl<T: Float> Finish<'_, T> {
    /// # Panics
    /// A target has not `len` elements or cannot be written.
    pub(crate) fn check(&self, len: usize) {
        let average = self.average.iter().map(|(cells, _)| cells);
        for cells in average.chain(&self.copy) {
            assert!(cells.len() == len && cells.is_writable());
        }
    }

    /// Finishes the block from `from` on, where the parameter is `p` and its first state array `z`.
    /// At most [`STAGE`] elements.
    ///
    /// # Safety
    /// Nobody else has these elements of the targets meanwhile.
    pub(crate) unsafe fn block(&self, from: usize, p: &[T], z: Option<&[T]>, tier: Tier) {
        // SAFETY: the caller's word.
        unsafe {
            if let (Some(weight), Some(z)) = (self.iterate, z) {
                let mut scratch = Scratch::<T, 1>::new(STAGE);
                let [stage] = scratch.arrays();
                let a = &mut stage[..p.len()];
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
    /// As `block`.
    unsafe fn follow(&self, from: usize, x: &[T], tier: Tier) {
        // SAFETY: the caller's word.
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
