//! Blocks in the L1 cache: what is between the caller's memory and the loop of a rule.
//!
//! An array that is kept in fewer bits is loaded into a block and stored from it; a gradient that
//! is more than scaled is prepared in one; what follows the update is done while the block is
//! there. The loop in between is the one that also runs over the caller's memory.

use crate::exec::isa::Tier;
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::ops::penalty::Shrink;
use crate::sweep::epilogue::Epilogue;
use crate::sweep::prologue::Prologue;
use crate::sweep::segment::{MAX_STATE, Segment, Slices};

/// What a pass over a segment leaves changed.
#[derive(Clone, Copy)]
pub(crate) struct Writes {
    pub(crate) state: bool,
    /// The parameter. The pass that writes it is the last, and finishes.
    pub(crate) parameter: bool,
}

/// Blocks of [`TILE`] elements.
struct Tile<'s, T> {
    p: &'s mut [T],
    g: &'s mut [T],
    prepared: &'s mut [T],
    state: [&'s mut [T]; MAX_STATE],
}

/// Calls `f` with every block of `block` elements of `from..to`, which starts one, and with the factor
/// that its gradient still lacks. A block is a multiple of [`storage::BLOCK`](crate::storage::BLOCK)
/// and no longer than [`TILE`].
///
/// # Safety
/// `check_elementwise` has passed for `S` states, `from <= to <= len`, and nobody else has any of
/// these elements of the segment and of what follows it meanwhile.
pub(crate) unsafe fn for_each_tile<T: Float, const S: usize>(
    segment: &Segment<'_, T>,
    (from, to): (usize, usize),
    block: usize,
    prologue: &Prologue,
    writes: Writes,
    tier: Tier,
    mut f: impl FnMut(T, Slices<'_, T, S>),
) {
    debug_assert!(from.is_multiple_of(block) || segment.is_bare());
    let plain = prologue.plain::<T>();
    if let (Some(scale), true) = (plain, segment.is_bare()) {
        for at in (from..to).step_by(block) {
            // SAFETY: what `slices` asks for is this function's contract, for each block of it.
            f(scale, unsafe { segment.slices(at, to.min(at + block)) });
        }
        return;
    }
    let mut scratch = Scratch::<T, { 3 + MAX_STATE }>::new(TILE);
    let [p, g, prepared, state @ ..] = scratch.arrays();
    let mut tile = Tile {
        p,
        g,
        prepared,
        state,
    };
    for at in (from..to).step_by(block) {
        let end = to.min(at + block);
        // SAFETY: what all of them ask for is this function's contract, for each block of it, and
        // the slices are gone before anything is stored.
        unsafe {
            let scale = tile.fill(segment, at, end, plain, prologue, tier);
            f(scale, tile.slices(segment, at, end, plain.is_none()));
            if writes.parameter && segment.threshold > T::ZERO {
                tile.shrink(segment, at, end, tier);
            }
            tile.store(segment, at, end, writes, tier);
            if let (true, Some(epilogue)) = (writes.parameter, segment.epilogue()) {
                tile.epilogue(segment, epilogue, (at, end), tier);
            }
        }
    }
}

impl<T: Float> Tile<'_, T> {
    /// Loads what is not where it can be worked on, and prepares the gradient.
    ///
    /// # Safety
    /// `at <= end <= len` of all arrays of the segment, and nobody writes these elements meanwhile.
    unsafe fn fill(
        &mut self,
        segment: &Segment<'_, T>,
        at: usize,
        end: usize,
        plain: Option<T>,
        prologue: &Prologue,
        tier: Tier,
    ) -> T {
        let n = end - at;
        // SAFETY: by this function's contract the elements are inside and nobody writes them.
        unsafe {
            if !segment.p.is_native() {
                segment.p.load(at, &mut self.p[..n], tier);
            }
            if !segment.g.is_native() {
                segment.g.load(at, &mut self.g[..n], tier);
            }
            for (view, block) in segment.state().iter().zip(&mut self.state) {
                if !view.is_native() {
                    view.load(at, &mut block[..n], tier);
                }
            }
            let Some(scale) = plain else {
                let p = segment.p.slice(at, end).unwrap_or(&self.p[..n]);
                let g = segment.g.slice(at, end).unwrap_or(&self.g[..n]);
                prologue.write(p, g, &mut self.prepared[..n], tier);
                return T::ONE;
            };
            scale
        }
    }

    /// The elements where they lie, or as `fill` has loaded them.
    ///
    /// # Safety
    /// `at <= end <= len` of all arrays of the segment, and nobody else has these elements while the
    /// result lives.
    unsafe fn slices<'a, const S: usize>(
        &'a mut self,
        segment: &'a Segment<'_, T>,
        at: usize,
        end: usize,
        prepared: bool,
    ) -> Slices<'a, T, S> {
        let n = end - at;
        let mut blocks = self.state.iter_mut();
        // SAFETY: by this function's contract the elements are inside and nobody else has them;
        // `Segment::new` asked that parameter and state can be written.
        unsafe {
            Slices {
                p: segment.p.slice_mut(at, end).unwrap_or(&mut self.p[..n]),
                g: if prepared {
                    &self.prepared[..n]
                } else {
                    segment.g.slice(at, end).unwrap_or(&self.g[..n])
                },
                state: std::array::from_fn(|j| {
                    let block = blocks.next().expect("one block per state array");
                    let own = segment.state()[j].slice_mut(at, end);
                    own.unwrap_or(&mut block[..n])
                }),
            }
        }
    }

    /// Shrinks the updated parameter before it is stored.
    ///
    /// # Safety
    /// `at <= end <= len` of the parameter, and nobody else has these elements meanwhile.
    unsafe fn shrink(&mut self, segment: &Segment<'_, T>, at: usize, end: usize, tier: Tier) {
        // SAFETY: by this function's contract the elements are inside and nobody else has them;
        // `Segment::new` asked that the parameter can be written.
        let p = unsafe { segment.p.slice_mut(at, end) };
        tier.run(Shrink {
            p: p.unwrap_or(&mut self.p[..end - at]),
            threshold: segment.threshold,
        });
    }

    /// Writes back what was loaded.
    ///
    /// # Safety
    /// `at <= end <= len` of all arrays of the segment, and nobody else has these elements meanwhile.
    unsafe fn store(
        &self,
        segment: &Segment<'_, T>,
        at: usize,
        end: usize,
        writes: Writes,
        tier: Tier,
    ) {
        let n = end - at;
        // SAFETY: by this function's contract the elements are inside and nobody else has them;
        // `Segment::new` asked that parameter and state can be written.
        unsafe {
            if writes.state {
                for (view, block) in segment.state().iter().zip(&self.state) {
                    if !view.is_native() {
                        view.store(at, &block[..n], tier);
                    }
                }
            }
            if writes.parameter && !segment.p.is_native() {
                segment.p.store(at, &self.p[..n], tier);
            }
        }
    }

    /// Does what follows the update.
    ///
    /// # Safety
    /// `at <= end <= len` of all arrays of the segment, `epilogue` is the segment's, and nobody else has
    /// these elements of either meanwhile.
    unsafe fn epilogue(
        &mut self,
        segment: &Segment<'_, T>,
        epilogue: &Epilogue<'_, T>,
        (at, end): (usize, usize),
        tier: Tier,
    ) {
        let n = end - at;
        // SAFETY: by this function's contract the elements are inside and nobody else has them;
        // `Segment::with_epilogue` asked that the targets are as long and can be written, and the
        // gradient where it is cleared, which is after the last use of `p` and `z`.
        unsafe {
            // What follows sees the parameter as it is kept.
            if !segment.p.is_native() {
                segment.p.load(at, &mut self.p[..n], tier);
            }
            let p = segment.p.slice(at, end).unwrap_or(&self.p[..n]);
            let z = segment
                .state()
                .first()
                .map(|z| z.slice(at, end).unwrap_or(&self.state[0][..n]));
            epilogue.block(at, p, z, tier);
            if epilogue.clear_gradient {
                segment.g.clear(at, end);
            }
        }
    }
}
