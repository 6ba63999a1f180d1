//! What is done with a parameter and its gradient once the rule has run, block by block while both
//! are in the L1 cache.

use crate::average::Lerp;
use crate::cells::Cells;
use crate::float::Float;
use crate::isa::Tier;
use crate::prepare::STAGE;
use crate::threads::CHUNK;
use crate::work::Work;

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
                let mut stage = [T::ZERO; STAGE];
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
        let mut stages = [[T::ZERO; STAGE]; 2];
        for from in (start..end).step_by(STAGE) {
            let n = STAGE.min(end - from);
            let [a, b] = &mut stages;
            let (a, b) = (&mut a[..n], &mut b[..n]);
            // SAFETY: no other chunk has these elements, and none is run twice.
            unsafe {
                p.load(from, a, tier);
                if let Some(z) = z {
                    z.load(from, b, tier);
                }
                finish.block(from, a, z.as_ref().map(|_| &*b), tier);
            }
        }
    }
}
