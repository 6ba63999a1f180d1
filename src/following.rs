//! The driver of parameters that have no gradient: nothing is updated, but averages and copies follow
//! them.

use crate::cells::Cells;
use crate::finish::Finish;
use crate::float::Float;
use crate::isa::Tier;
use crate::prepare::STAGE;
use crate::scratch::Scratch;
use crate::threads::CHUNK;
use crate::work::Work;

/// A parameter that a step leaves alone, and what still follows it.
#[derive(Debug)]
pub struct Idle<'a, T> {
    /// The parameter.
    pub p: Cells<'a, T>,
    /// Its first state array, where [`Finish::iterate`] needs it.
    pub z: Option<Cells<'a, T>>,
    /// What follows.
    pub finish: Finish<'a, T>,
}

/// The work over parameters that have no gradient.
#[derive(Debug)]
pub struct Following<'a, T> {
    parameters: Vec<Idle<'a, T>>,
    /// Which parameter and from where each chunk is.
    chunks: Vec<(usize, usize)>,
    elements: usize,
}

impl<'a, T: Float> Following<'a, T> {
    /// The work over `parameters`.
    pub fn new(parameters: Vec<Idle<'a, T>>) -> Self {
        let mut chunks = Vec::new();
        let mut elements = 0;
        for (index, Idle { p, finish, .. }) in parameters.iter().enumerate() {
            finish.check(p.len());
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

impl<T: Float> Work for Following<'_, T> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        (self.chunks.len(), self.elements / 2)
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let (index, start) = self.chunks[chunk];
        let Idle { p, z, finish } = &self.parameters[index];
        let end = p.len().min(start + CHUNK);
        let mut scratch = Scratch::<T, 2>::new(STAGE);
        let mut stages = scratch.arrays();
        for from in (start..end).step_by(STAGE) {
            let n = STAGE.min(end - from);
            let [a, b] = stages.each_mut().map(|stage| &mut stage[..n]);
            // SAFETY: no other chunk has these elements, and none is run twice.
            unsafe {
                let p = p.read_into(from, a, tier);
                let z = z.as_ref().map(|z| z.read_into(from, b, tier));
                finish.block(from, p, z, tier);
            }
        }
    }
}
