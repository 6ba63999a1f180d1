//! Tiles: blocks in the L1 cache between the caller's memory and the loop of a rule.
//!
//! An array stored in low precision is loaded into a tile and stored from it, a gradient whose
//! prologue does more than scale it is prepared in a tile, and the epilogue runs while the tile is
//! in the cache. The loop of the rule is the same as on the caller's memory.

use crate::exec::isa::Tier;
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::ops::penalty::Shrink;
use crate::storage;
use crate::sweep::epilogue::Epilogue;
use crate::sweep::prologue::Prologue;
use crate::sweep::segment::{MAX_STATE, Segment, Slices};

/// The arrays that a pass over a segment writes.
#[derive(Clone, Copy)]
pub(crate) struct Writes {
    pub(crate) state: bool,
    /// The parameter. The pass that writes it is the last one and runs the epilogue.
    pub(crate) parameter: bool,
}

/// Buffers of [`TILE`] elements.
struct Tile<'s, T> {
    p: &'s mut [T],
    g: &'s mut [T],
    prepared: &'s mut [T],
    state: [&'s mut [T]; MAX_STATE],
}

/// Calls `f` with each block of `block` elements in `from..to`, and with the factor by which the
/// gradient is still to be multiplied. `block` is at most [`TILE`], and if an array has scales,
/// `from` and `block` are multiples of [`storage::BLOCK`].
///
/// # Safety
/// `check_elementwise` has passed for `S` states, `from <= to <= len`, and no other code accesses
/// these elements of the segment and of the targets of its epilogue during the call.
pub(crate) unsafe fn for_each_tile<T: Float, const S: usize>(
    segment: &Segment<'_, T>,
    (from, to): (usize, usize),
    block: usize,
    prologue: &Prologue,
    writes: Writes,
    tier: Tier,
    mut f: impl FnMut(T, Slices<'_, T, S>),
) {
    debug_assert!(from.is_multiple_of(storage::BLOCK) || !segment.has_scales());
    let plain = prologue.plain::<T>();
    if let (Some(scale), true) = (plain, segment.is_bare()) {
        for at in (from..to).step_by(block) {
            // SAFETY: `slices` has the contract of this function, and the block is in `from..to`.
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
        // SAFETY: all four calls have the contract of this function, and the block is in
        // `from..to`. The slices are dropped before anything is stored.
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
    /// Loads the arrays that are not native, applies the prologue to the gradient, and returns the
    /// factor by which the gradient is still to be multiplied.
    ///
    /// # Safety
    /// `at <= end <= len` for all arrays of the segment, and no other code writes these elements
    /// during the call.
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
        // SAFETY: by this function's contract the range is inside all arrays, and no other code
        // writes these elements.
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

    /// Returns the elements of native arrays in place, and of others as loaded by `fill`.
    ///
    /// # Safety
    /// `at <= end <= len` for all arrays of the segment, and no other code accesses these elements
    /// while the result exists.
    unsafe fn slices<'a, const S: usize>(
        &'a mut self,
        segment: &'a Segment<'_, T>,
        at: usize,
        end: usize,
        prepared: bool,
    ) -> Slices<'a, T, S> {
        let n = end - at;
        let mut blocks = self.state.iter_mut();
        // SAFETY: by this function's contract the range is inside all arrays and no other code
        // accesses these elements. `Segment::new` checked that parameter and state are writable.
        unsafe {
            Slices {
                p: segment.p.slice_mut(at, end).unwrap_or(&mut self.p[..n]),
                g: if prepared {
                    &self.prepared[..n]
                } else {
                    segment.g.slice(at, end).unwrap_or(&self.g[..n])
                },
                state: std::array::from_fn(|j| {
                    let block = blocks.next().expect("one tile per state array");
                    let own = segment.state()[j].slice_mut(at, end);
                    own.unwrap_or(&mut block[..n])
                }),
            }
        }
    }

    /// Soft-thresholds the updated parameter before it is stored.
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

    /// Stores the arrays that are not native.
    ///
    /// # Safety
    /// `at <= end <= len` for all arrays of the segment, and no other code accesses these elements
    /// during the call.
    unsafe fn store(
        &self,
        segment: &Segment<'_, T>,
        at: usize,
        end: usize,
        writes: Writes,
        tier: Tier,
    ) {
        let n = end - at;
        // SAFETY: by this function's contract the range is inside all arrays and no other code
        // accesses these elements. `Segment::new` checked that parameter and state are writable.
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

    /// Runs the epilogue.
    ///
    /// # Safety
    /// `at <= end <= len` for all arrays of the segment, `epilogue` belongs to the segment, and no
    /// other code accesses these elements of either during the call.
    unsafe fn epilogue(
        &mut self,
        segment: &Segment<'_, T>,
        epilogue: &Epilogue<'_, T>,
        (at, end): (usize, usize),
        tier: Tier,
    ) {
        let n = end - at;
        // SAFETY: by this function's contract the range is inside all arrays and no other code
        // accesses these elements. `Segment::with_epilogue` checked that the targets are writable
        // and as long as the parameter, and that a gradient to be cleared is writable. It is
        // cleared after the last use of `p` and `z`.
        unsafe {
            // The epilogue uses the parameter as rounded by its storage.
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
