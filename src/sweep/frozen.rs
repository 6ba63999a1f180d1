//! The driver of parameters that have no gradient. They do not change, but their averages and
//! copies are updated.

use crate::exec::isa::Tier;
use crate::exec::pool::CHUNK;
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::storage::view::StorageView;
use crate::sweep::epilogue::Epilogue;
use crate::sweep::task::{Driver, cost};

/// A parameter that a step does not change, with its epilogue.
#[derive(Debug)]
pub struct FrozenParameter<'a, T> {
    /// The parameter.
    pub p: StorageView<'a, T>,
    /// The first state array, which [`Epilogue::iterate`] requires.
    pub z: Option<StorageView<'a, T>>,
    /// The targets to update.
    pub epilogue: Epilogue<'a, T>,
}

/// The driver of parameters that have no gradient.
#[derive(Debug)]
pub(crate) struct Frozen<'a, T> {
    parameters: &'a [FrozenParameter<'a, T>],
    /// The parameter and the first element of each chunk.
    chunks: Vec<(usize, usize)>,
    elements: usize,
}

impl<'a, T: Float> Frozen<'a, T> {
    /// Creates the driver of `parameters`.
    ///
    /// # Panics
    /// A target or the first state array has another length than its parameter, or a target is
    /// read-only.
    pub(crate) fn new(parameters: &'a [FrozenParameter<'a, T>]) -> Self {
        let mut chunks = Vec::new();
        let mut elements = 0;
        for (index, FrozenParameter { p, z, epilogue }) in parameters.iter().enumerate() {
            epilogue.check(p.len());
            let fits = z.as_ref().is_none_or(|z| z.len() == p.len());
            assert!(fits, "z must have the length of p");
            elements += p.len();
            chunks.extend((0..p.len()).step_by(CHUNK).map(|from| (index, from)));
        }
        Self {
            parameters,
            chunks,
            elements,
        }
    }
}

impl<T: Float> Driver for Frozen<'_, T> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        (self.chunks.len(), self.elements * cost::<T>() / 2)
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let (index, start) = self.chunks[chunk];
        let FrozenParameter { p, z, epilogue } = &self.parameters[index];
        let end = p.len().min(start + CHUNK);
        let mut scratch = Scratch::<T, 2>::new(TILE);
        let mut tiles = scratch.arrays();
        for from in (start..end).step_by(TILE) {
            let n = TILE.min(end - from);
            let [a, b] = tiles.each_mut().map(|tile| &mut tile[..n]);
            // SAFETY: the range is inside all arrays, whose lengths `new` compared. No other chunk
            // contains these elements of the targets, and by the contract of `run` no chunk is
            // processed twice. `p` and `z` are only read.
            unsafe {
                let p = p.read_into(from, a, tier);
                let z = z.as_ref().map(|z| z.read_into(from, b, tier));
                epilogue.block(from, p, z, tier);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "z must have the length of p")]
    fn a_shorter_iterate_is_rejected() {
        let (mut p, mut z) = ([0.0_f32; 8], [0.0_f32; 4]);
        let _ = Frozen::new(&[FrozenParameter {
            p: StorageView::native(&mut p),
            z: Some(StorageView::native(&mut z)),
            epilogue: Epilogue::default(),
        }]);
    }
}
