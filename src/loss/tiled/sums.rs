//! The gradient by an input that is one number for a group of elements: the sum over the group.
//!
//! A block writes the groups that it has whole. The parts of groups that begin or end in other
//! blocks are kept, and added in the order of the blocks when all of them are done, so that the
//! result does not depend on threads.

use std::ops::Range;

use crate::exec::isa::Tier;
use crate::numeric::float::Float;
use crate::reduce::Partials;
use crate::storage::view::StorageView;

/// The sums of the groups that are in more than one block: of the first and of the last of a block.
#[derive(Debug)]
pub(super) struct Sums {
    length: usize,
    edges: Partials,
}

impl Sums {
    /// Groups of `length` elements in so many blocks.
    pub(super) fn new(length: usize, blocks: usize) -> Self {
        Self {
            length,
            edges: Partials::new(2 * blocks),
        }
    }

    /// The groups of which a range of elements has a part, with that part.
    fn parts(&self, elements: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let length = self.length;
        let groups = elements.start / length..elements.end.div_ceil(length);
        groups.map(move |group| {
            let part = (group * length).max(elements.start)..elements.end.min((group + 1) * length);
            (group, part)
        })
    }

    /// Which of the edges of a block a part of a group is, or `None` if the part is the whole
    /// group.
    fn edge(&self, elements: &Range<usize>, part: &Range<usize>) -> Option<usize> {
        let whole = part.len() == self.length;
        (!whole).then(|| usize::from(part.start > elements.start))
    }

    /// Adds up the derivatives of the elements of a block.
    ///
    /// # Safety
    /// `gradient` has an element for every group and may be written, and no other block has these
    /// elements.
    pub(super) unsafe fn block<T: Float>(
        &self,
        block: usize,
        elements: Range<usize>,
        derivatives: &[T],
        gradient: &StorageView<'_, T>,
        tier: Tier,
    ) {
        for (group, part) in self.parts(elements.clone()) {
            let place = part.start - elements.start..part.end - elements.start;
            let mut sum = 0.0;
            for x in &derivatives[place] {
                sum += x.to_f64();
            }
            match self.edge(&elements, &part) {
                Some(edge) => self.edges.set(2 * block + edge, sum),
                // SAFETY: the gradient has an element for every group, and this block alone has the
                // whole group.
                None => unsafe { gradient.store(group, &[T::from_f64(sum)], tier) },
            }
        }
    }

    /// Writes the groups that are in several blocks of `block` elements.
    ///
    /// # Safety
    /// `gradient` has an element for every group and may be written, nobody else has it, and
    /// [`block`](Self::block) was called for every block.
    pub(super) unsafe fn finish<T: Float>(
        &self,
        len: usize,
        block: usize,
        gradient: &StorageView<'_, T>,
        tier: Tier,
    ) {
        let mut sum = 0.0;
        for (index, start) in (0..len).step_by(block).enumerate() {
            let elements = start..len.min(start + block);
            for (group, part) in self.parts(elements.clone()) {
                if let Some(edge) = self.edge(&elements, &part) {
                    sum += self.edges.get(2 * index + edge);
                    if part.end == (group + 1) * self.length {
                        // SAFETY: the gradient has an element for every group, and nobody else has
                        // it.
                        unsafe { gradient.store(group, &[T::from_f64(sum)], tier) };
                        sum = 0.0;
                    }
                }
            }
        }
    }
}
