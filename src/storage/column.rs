//! Arrays that a loop reads and writes group by group, with the conversion in registers.

use super::half::Bf16;
use super::int8::{Encoder, Scheme, Signed, Squares};
use super::{Aligned, BLOCK, Encoding, GROUP, Noise, RUN, Rounding};
use crate::exec::isa;
use crate::numeric::float::Float;

/// An array of groups that is read.
pub(crate) trait Column<T> {
    /// Returns the number of groups.
    fn groups(&self) -> usize;
    /// Prefetches the start of a group, which may be outside.
    fn prefetch(&self, index: usize);
    /// Returns a group.
    fn read(&mut self, index: usize) -> [T; GROUP];
}

/// Groups of a run of elements, all of which have random numbers under one key.
pub(crate) const PER_RUN: usize = RUN / GROUP;

/// An array of groups that is updated from the first to the last. `encoding` is a constant, by
/// which columns whose elements have several encodings select the code.
pub(crate) trait ColumnMut<T> {
    /// What the update of a run needs.
    type Run: Copy;
    /// What precedes the first run.
    const NO_RUN: Self::Run;
    /// Returns the number of groups.
    fn groups(&self) -> usize;
    /// Prefetches the start of a group, which may be outside.
    fn prefetch(&self, index: usize);
    /// Prepares the run that starts with a group.
    fn enter(&self, _run: &mut Self::Run, _index: usize) {}
    /// Returns a group of the run.
    fn read(&self, run: &Self::Run, index: usize, encoding: Encoding) -> [T; GROUP];
    /// Replaces a group of the run.
    fn write(&mut self, run: &mut Self::Run, index: usize, new: [T; GROUP], encoding: Encoding);
    /// Completes the run that starts with a group.
    fn leave(&mut self, _run: &mut Self::Run, _index: usize, _encoding: Encoding) {}
    /// Completes the last run.
    fn finish(&mut self, _run: &Self::Run, _encoding: Encoding) {}
}

/// bfloat16 numbers.
pub(crate) struct Halves<'a>(&'a [[u16; GROUP]]);

impl<'a> Halves<'a> {
    /// Creates a column of the whole groups.
    pub(super) fn new(halves: &'a [u16]) -> Self {
        Self(halves.as_chunks().0)
    }
}

/// bfloat16 numbers with stochastic rounding.
pub(crate) struct HalvesMut<'a> {
    halves: &'a mut [[u16; GROUP]],
    noise: Noise,
}

impl<'a> HalvesMut<'a> {
    /// Creates a column of the whole groups, unless `noise` starts inside a run.
    pub(super) fn new(halves: &'a mut [u16], noise: Noise) -> Option<Self> {
        let halves = halves.as_chunks_mut().0;
        noise.starts_run().then_some(Self { halves, noise })
    }
}

/// bfloat16 numbers with rounding to nearest.
pub(crate) struct NearestMut<'a>(&'a mut [[u16; GROUP]]);

impl<'a> NearestMut<'a> {
    /// Creates a column of the whole groups.
    pub(super) fn new(halves: &'a mut [u16]) -> Self {
        Self(halves.as_chunks_mut().0)
    }
}

/// Applies `f` to every element of a group.
#[inline(always)]
fn map<U: Copy, V: Copy + Default>(group: &[U; GROUP], f: impl Fn(U) -> V) -> [V; GROUP] {
    let mut out = [V::default(); GROUP];
    for i in 0..GROUP {
        out[i] = f(group[i]);
    }
    out
}

impl<T: Copy> Column<T> for &[[T; GROUP]] {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn read(&mut self, index: usize) -> [T; GROUP] {
        self[index]
    }
}

impl<T: Copy> ColumnMut<T> for &mut [[T; GROUP]] {
    type Run = ();
    const NO_RUN: () = ();
    #[inline(always)]
    fn groups(&self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn read(&self, _run: &(), index: usize, _encoding: Encoding) -> [T; GROUP] {
        self[index]
    }
    #[inline(always)]
    fn write(&mut self, _run: &mut (), index: usize, new: [T; GROUP], _encoding: Encoding) {
        self[index] = new;
    }
}

impl<T: Float> Column<T> for Halves<'_> {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.0.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn read(&mut self, index: usize) -> [T; GROUP] {
        map(&Bf16::widen(&self.0[index]), T::from_f32)
    }
}

impl<T: Float> ColumnMut<T> for HalvesMut<'_> {
    /// The random numbers.
    type Run = Aligned<[u16; RUN]>;
    const NO_RUN: Aligned<[u16; RUN]> = Aligned([0; RUN]);
    #[inline(always)]
    fn groups(&self) -> usize {
        self.halves.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.halves.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn enter(&self, numbers: &mut Aligned<[u16; RUN]>, index: usize) {
        numbers.0 = self.noise.skip(index * GROUP).numbers();
    }
    #[inline(always)]
    fn read(
        &self,
        _numbers: &Aligned<[u16; RUN]>,
        index: usize,
        _encoding: Encoding,
    ) -> [T; GROUP] {
        map(&Bf16::widen(&self.halves[index]), T::from_f32)
    }
    #[inline(always)]
    fn write(
        &mut self,
        numbers: &mut Aligned<[u16; RUN]>,
        index: usize,
        new: [T; GROUP],
        _encoding: Encoding,
    ) {
        let single = map(&new, T::to_f32);
        let numbers = &numbers.0.as_chunks().0[index % PER_RUN];
        Bf16::narrow(&single, numbers, &mut self.halves[index]);
    }
}

impl<T: Float> ColumnMut<T> for NearestMut<'_> {
    type Run = ();
    const NO_RUN: () = ();
    #[inline(always)]
    fn groups(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.0.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn read(&self, _run: &(), index: usize, _encoding: Encoding) -> [T; GROUP] {
        map(&Bf16::widen(&self.0[index]), T::from_f32)
    }
    #[inline(always)]
    fn write(&mut self, _run: &mut (), index: usize, new: [T; GROUP], _encoding: Encoding) {
        Bf16::narrow_to_nearest(&map(&new, T::to_f32), &mut self.0[index]);
    }
}

/// Whole blocks of signed numbers or of squares in 8 bits.
pub(crate) struct CodesMut<'a> {
    codes: &'a mut [[u8; GROUP]],
    scales: &'a mut [f32],
    rounding: Rounding,
}

impl<'a> CodesMut<'a> {
    /// Creates a column of whole blocks.
    ///
    /// # Panics
    /// There is not one scale per block, or the random numbers do not start at a run.
    pub(super) fn new(codes: &'a mut [u8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        let (codes, rest) = codes.as_chunks_mut();
        assert!(rest.is_empty() && codes.len() == scales.len() * PER_RUN);
        assert!(rounding.starts_run());
        Self {
            codes,
            scales,
            rounding,
        }
    }

    /// Decodes a group.
    #[inline(always)]
    fn decode<T: Float, S: Scheme>(&self, scheme: S, scale: f32, index: usize) -> [T; GROUP] {
        map(&self.codes[index], |byte| scheme.decode(byte, scale))
    }
}

/// The block that a run updates, and the new numbers of the block before it. Rounding needs the
/// maximum of all new numbers of a block, so they are rounded while the next block is updated,
/// beside its square roots and divisions.
#[derive(Clone, Copy)]
pub(crate) struct Block<T> {
    /// The scale of the block.
    scale: f32,
    /// The new numbers: of the block in the groups that are updated, otherwise of the one before.
    new: Aligned<[T; BLOCK]>,
    /// The rounding of the block before.
    encoder: Encoder,
    /// The number of groups to the block before.
    behind: usize,
}

const _: () = assert!(RUN == BLOCK);

impl<T: Float> Block<T> {
    /// Rounds a group of the new numbers.
    #[inline(always)]
    fn encode<S: Scheme>(&self, scheme: S, place: usize, to: &mut [u8; GROUP]) {
        self.encoder.group(scheme, &self.new.0, place, to);
    }
}

impl<T: Float> ColumnMut<T> for CodesMut<'_> {
    type Run = Block<T>;
    const NO_RUN: Block<T> = Block {
        scale: 0.0,
        new: Aligned([T::ZERO; BLOCK]),
        encoder: Encoder::NONE,
        behind: 0,
    };
    #[inline(always)]
    fn groups(&self) -> usize {
        self.codes.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.codes.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn enter(&self, block: &mut Block<T>, index: usize) {
        block.scale = self.scales[index / PER_RUN];
    }
    #[inline(always)]
    fn read(&self, block: &Block<T>, index: usize, encoding: Encoding) -> [T; GROUP] {
        match encoding {
            Encoding::Signed => self.decode(Signed, block.scale, index),
            _ => self.decode(Squares, block.scale, index),
        }
    }
    #[inline(always)]
    fn write(&mut self, block: &mut Block<T>, index: usize, new: [T; GROUP], encoding: Encoding) {
        let place = index % PER_RUN;
        // In the first block there is none before it: its own codes, which have been read, are
        // overwritten, and once more by their rounding.
        let to = &mut self.codes[index - block.behind];
        match encoding {
            Encoding::Signed => block.encode(Signed, place, to),
            _ => block.encode(Squares, place, to),
        }
        block.new.0.as_chunks_mut().0[place] = new;
    }
    #[inline(always)]
    fn leave(&mut self, block: &mut Block<T>, index: usize, encoding: Encoding) {
        let rounding = self.rounding.skip(index * GROUP);
        self.scales[index / PER_RUN] = match encoding {
            Encoding::Signed => block.encoder.start(Signed, &mut block.new.0, rounding),
            _ => block.encoder.start(Squares, &mut block.new.0, rounding),
        };
        block.behind = PER_RUN;
    }
    #[inline(always)]
    fn finish(&mut self, block: &Block<T>, encoding: Encoding) {
        let first = self.codes.len() - PER_RUN;
        let (new, to) = (&block.new.0, &mut self.codes[first..]);
        match encoding {
            Encoding::Signed => block.encoder.groups(Signed, new, to),
            _ => block.encoder.groups(Squares, new, to),
        }
    }
}

/// An array that is set to 0 once it is read.
pub(crate) struct Cleared<'a, T>(pub(crate) &'a mut [[T; GROUP]]);

impl<T: Float> Column<T> for Cleared<'_, T> {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.0.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn read(&mut self, index: usize) -> [T; GROUP] {
        std::mem::replace(&mut self.0[index], [T::ZERO; GROUP])
    }
}

/// What a loop writes besides the groups that it updates.
pub(crate) trait Target<T> {
    /// Prefetches the start of a group, which may be outside.
    fn prefetch(&self, index: usize);
    /// Writes what belongs to a new group.
    fn follow(&mut self, index: usize, new: &[T; GROUP]);
}

/// An average that moves towards what is written: `average += weight (new - average)`.
pub(crate) struct Average<'a, T> {
    pub(crate) average: &'a mut [[T; GROUP]],
    pub(crate) weight: T,
}

impl<T: Float> Target<T> for Average<'_, T> {
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.average.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn follow(&mut self, index: usize, new: &[T; GROUP]) {
        let mut moved = self.average[index];
        for i in 0..GROUP {
            moved[i] += self.weight * (new[i] - moved[i]);
        }
        self.average[index] = moved;
    }
}

/// A copy of what is written.
impl<T: Float> Target<T> for NearestMut<'_> {
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.0.as_ptr().wrapping_add(index));
    }
    #[inline(always)]
    fn follow(&mut self, index: usize, new: &[T; GROUP]) {
        Bf16::narrow_to_nearest(&map(new, T::to_f32), &mut self.0[index]);
    }
}

impl<T, A: Target<T>, B: Target<T>> Target<T> for (A, B) {
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        self.0.prefetch(index);
        self.1.prefetch(index);
    }
    #[inline(always)]
    fn follow(&mut self, index: usize, new: &[T; GROUP]) {
        self.0.follow(index, new);
        self.1.follow(index, new);
    }
}

/// Native numbers, and targets of what is written.
pub(crate) struct Followed<'a, T, F> {
    pub(crate) p: &'a mut [[T; GROUP]],
    pub(crate) targets: F,
}

impl<T: Float, F: Target<T>> ColumnMut<T> for Followed<'_, T, F> {
    type Run = ();
    const NO_RUN: () = ();
    #[inline(always)]
    fn groups(&self) -> usize {
        self.p.len()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        isa::prefetch(self.p.as_ptr().wrapping_add(index));
        self.targets.prefetch(index);
    }
    #[inline(always)]
    fn read(&self, _run: &(), index: usize, _encoding: Encoding) -> [T; GROUP] {
        self.p[index]
    }
    #[inline(always)]
    fn write(&mut self, _run: &mut (), index: usize, new: [T; GROUP], _encoding: Encoding) {
        self.targets.follow(index, &new);
        self.p[index] = new;
    }
}
