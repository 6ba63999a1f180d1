//! One parameter in one step: its memory, its shape and its context.

use crate::exec::scratch::TILE;
use crate::numeric::float::Float;
use crate::reduce;
use crate::storage;
use crate::storage::view::StorageView;
use crate::sweep::epilogue::Epilogue;

/// Parts of a parameter start at multiples of this number of elements, so that the blocks of sums
/// and of 8-bit numbers are the same as those of the whole parameter.
pub const PART: usize = reduce::BLOCK;

const _: () = assert!(PART.is_multiple_of(TILE) && PART.is_multiple_of(storage::BLOCK));

/// The maximum number of state arrays of a rule.
pub const MAX_STATE: usize = 4;

/// The maximum number of scalars in a parameter's state, not counting the step.
pub const MAX_SCALARS: usize = 3;

/// The inputs of a parameter's rule other than the hyperparameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepContext {
    /// The number of this step of the parameter, from 1.
    pub step: u64,
    /// Whether the state arrays are new and contain only zeros. This differs from `step == 1`:
    /// momentum may be enabled later, and a loaded state may lack a step count.
    pub fresh: bool,
    /// The scalars of the state, in the order of `Method::scalars`.
    pub scalars: [f64; MAX_SCALARS],
}

/// One parameter in one step.
#[derive(Debug)]
pub struct Segment<'a, T> {
    pub(crate) p: StorageView<'a, T>,
    pub(crate) g: StorageView<'a, T>,
    view: [StorageView<'a, T>; MAX_STATE],
    slots: usize,
    epilogue: Option<Box<Epilogue<'a, T>>>,
    shape: &'a [usize],
    follows: bool,
    /// The first element of the parameter that the segment has, and the length of the parameter.
    pub(crate) offset: usize,
    pub(crate) whole: usize,
    /// What every element is shrunk by once it is updated.
    pub(crate) threshold: T,
    pub(crate) index: usize,
    pub(crate) context: StepContext,
}

impl<'a, T: Float> Segment<'a, T> {
    /// Creates a segment from a parameter, its gradient, its shape and its state arrays.
    ///
    /// # Panics
    /// The gradient or the shape has another size than the parameter, the parameter or a state
    /// array is read-only, or there are more than [`MAX_STATE`] state arrays.
    #[inline]
    pub fn new(
        p: StorageView<'a, T>,
        g: StorageView<'a, T>,
        shape: &'a [usize],
        state: impl IntoIterator<Item = StorageView<'a, T>>,
        context: StepContext,
    ) -> Self {
        assert_eq!(
            p.len(),
            g.len(),
            "a gradient must have the length of its parameter"
        );
        assert_eq!(
            Some(p.len()),
            size(shape),
            "a parameter must have the size of its shape"
        );
        assert!(p.is_writable(), "a parameter must be writable");
        let mut view = [const { StorageView::EMPTY }; MAX_STATE];
        let mut slots = 0;
        for array in state {
            assert!(array.is_writable(), "state must be writable");
            assert!(slots < MAX_STATE, "at most {MAX_STATE} state arrays");
            view[slots] = array;
            slots += 1;
        }
        Self {
            offset: 0,
            whole: p.len(),
            p,
            g,
            view,
            slots,
            epilogue: None,
            shape,
            follows: false,
            threshold: T::ZERO,
            index: 0,
            context,
        }
    }

    /// Creates a segment whose arrays are all stored in the type used for computation.
    ///
    /// # Panics
    /// As [`Segment::new`].
    pub fn native<I>(
        p: &'a mut [T],
        g: &'a [T],
        shape: &'a [usize],
        state: I,
        context: StepContext,
    ) -> Self
    where
        I: IntoIterator<Item = &'a mut [T]>,
    {
        let state = state.into_iter().map(StorageView::native);
        Self::new(
            StorageView::native(p),
            StorageView::read(g),
            shape,
            state,
            context,
        )
    }

    /// Sets the operations on the parameter and the gradient after the update.
    ///
    /// # Panics
    /// A target has another length or is read-only, or a read-only gradient is to be cleared.
    #[inline]
    #[must_use]
    pub fn with_epilogue(self, epilogue: Epilogue<'a, T>) -> Self {
        epilogue.check(self.len());
        assert!(self.g.is_writable() || !epilogue.clear_gradient);
        Self {
            epilogue: Some(Box::new(epilogue)),
            ..self
        }
    }

    /// Replaces the gradient and the context, for a further step, in which the segment does not
    /// [follow](Self::follows) another.
    ///
    /// # Panics
    /// The gradient has another length than the parameter, or is read-only and to be cleared.
    #[inline]
    pub fn renew(&mut self, g: StorageView<'a, T>, context: StepContext) {
        assert_eq!(
            self.len(),
            g.len(),
            "a gradient must have the length of its parameter"
        );
        let clears = self
            .epilogue()
            .is_some_and(|epilogue| epilogue.clear_gradient);
        assert!(g.is_writable() || !clears);
        (self.g, self.context, self.follows) = (g, context, false);
    }

    /// Sets the index of the parameter among all parameters of a step.
    #[inline]
    #[must_use]
    pub fn numbered(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Declares that the segment is the part from element `offset` of a parameter of `whole`
    /// elements, whose other parts belong to other processes. The caller starts stochastic rounding
    /// at `offset`. A rule that depends on shapes takes whole and empty parts only.
    ///
    /// # Panics
    /// The part is not inside the parameter, or `offset` is not a multiple of [`PART`] in a part
    /// that is not empty.
    #[inline]
    #[must_use]
    pub fn part_of(self, offset: usize, whole: usize) -> Self {
        assert!(
            offset <= whole && self.len() <= whole - offset,
            "a part must be inside its parameter"
        );
        assert!(
            self.is_empty() || offset.is_multiple_of(PART),
            "a part must start at a multiple of {PART}"
        );
        Self {
            offset,
            whole,
            ..self
        }
    }

    /// Declares that the arrays of this segment are in the same allocations as those of the segment
    /// before it, so that one loop may run over both segments if their arrays are also adjacent.
    ///
    /// # Safety
    /// Each array of the segment (the parameter, the gradient and every state array) is in the same
    /// allocation as that of the segment before it, and the pointers given to
    /// [`StorageView::from_raw`] are valid for the whole allocation. Pointers from slices are not,
    /// so this must not be called on a segment from [`Segment::native`].
    #[inline]
    #[must_use]
    pub unsafe fn follows(self) -> Self {
        Self {
            follows: true,
            ..self
        }
    }

    /// Returns the index of the parameter among all parameters of a step.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the number of elements of the parameter.
    pub fn len(&self) -> usize {
        self.p.len()
    }

    /// Returns whether the parameter has no elements.
    pub fn is_empty(&self) -> bool {
        self.p.is_empty()
    }

    /// Returns whether the segment is its whole parameter.
    pub(crate) fn is_whole(&self) -> bool {
        self.len() == self.whole
    }

    /// Returns the shape of the parameter.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Returns the state arrays.
    pub(crate) fn state(&self) -> &[StorageView<'a, T>] {
        &self.view[..self.slots]
    }

    /// Returns the operations after the update.
    pub(crate) fn epilogue(&self) -> Option<&Epilogue<'a, T>> {
        self.epilogue.as_deref()
    }

    /// Returns whether the parameter is processed further after its update.
    pub(crate) fn has_epilogue(&self) -> bool {
        self.epilogue.is_some() || self.threshold > T::ZERO
    }

    /// Returns whether the segment before it may absorb the segment.
    pub(crate) fn may_follow(&self) -> bool {
        self.follows
    }

    /// Returns whether a state array is stored with scales.
    pub(crate) fn has_scales(&self) -> bool {
        self.state().iter().any(StorageView::is_scaled)
    }

    /// Returns whether a rule can run directly on the caller's memory, with no epilogue.
    pub fn is_bare(&self) -> bool {
        let state = self.state().iter().all(StorageView::is_native);
        !self.has_epilogue() && self.p.is_native() && self.g.is_native() && state
    }

    /// Checks the state arrays against an elementwise rule with this number of states.
    ///
    /// # Panics
    /// The number of state arrays differs, or one has another length than the parameter.
    pub(crate) fn check_elementwise(&self, states: usize) {
        assert_eq!(self.slots, states, "the rule needs one array per state");
        for array in self.state() {
            assert_eq!(
                self.len(),
                array.len(),
                "state must have the length of its parameter"
            );
        }
    }

    /// Extends the segment by `next` if every array of `next` starts where that of this segment
    /// ends and the contexts are equal. Returns whether it did.
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        let mut states = self.state().iter().zip(next.state());
        let continues = next.follows
            && self.context == next.context
            && self.is_bare()
            && next.is_bare()
            && self.p.meets(&next.p)
            && self.g.meets(&next.g)
            && states.all(|(own, next)| own.meets(next));
        if continues {
            self.p.extend(&next.p);
            self.g.extend(&next.g);
            for (own, next) in self.view.iter_mut().zip(next.state()) {
                own.extend(next);
            }
        }
        continues
    }

    /// Borrows the elements `from..to` of a bare elementwise segment.
    ///
    /// # Safety
    /// Every state array has the length of the parameter (`check_elementwise`), `from <= to <=
    /// len`, and no other code accesses these elements while the result exists.
    pub(crate) unsafe fn slices<const S: usize>(&self, from: usize, to: usize) -> Slices<'_, T, S> {
        let bare = "all arrays are stored in the type used for computation";
        // SAFETY: by this function's contract `from..to` is inside all arrays and no other code
        // accesses these elements. `new` checked that parameter and state are writable.
        unsafe {
            Slices {
                p: self.p.slice_mut(from, to).expect(bare),
                g: self.g.slice(from, to).expect(bare),
                state: std::array::from_fn(|j| self.view[j].slice_mut(from, to).expect(bare)),
            }
        }
    }
}

/// Returns the number of elements of an array of this shape, or `None` on overflow.
pub(crate) fn size(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1, |n: usize, &d| n.checked_mul(d))
}

/// The rules of segments. Consecutive segments with equal contexts have one rule, so that most steps
/// have one for all.
pub(crate) struct Rules<R> {
    /// Each rule with the first segment that has it.
    runs: Vec<(usize, R)>,
}

impl<R: Copy> Rules<R> {
    /// Creates the rules of `segments`. `rule_at` returns the rule for a context.
    pub(crate) fn new<T: Float>(
        segments: &[Segment<'_, T>],
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self {
        let mut runs = Vec::new();
        let mut last = None;
        for (index, segment) in segments.iter().enumerate() {
            if last != Some(&segment.context) {
                runs.push((index, rule_at(segment.context)));
                last = Some(&segment.context);
            }
        }
        Self { runs }
    }

    /// Returns the rule of a segment.
    pub(crate) fn at(&self, segment: usize) -> R {
        let after = self.runs.partition_point(|&(first, _)| first <= segment);
        self.runs[after - 1].1
    }
}

/// A part of a parameter, its gradient and its state.
pub(crate) struct Slices<'a, T, const S: usize> {
    pub(crate) p: &'a mut [T],
    pub(crate) g: &'a [T],
    pub(crate) state: [&'a mut [T]; S],
}

impl<T, const S: usize> Slices<'_, T, S> {
    /// The same elements, for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Slices<'_, T, S> {
        Slices {
            p: self.p,
            g: self.g,
            state: self.state.each_mut().map(|array| &mut **array),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::view::Raw;
    use crate::storage::{Encoding, Rounding};

    #[test]
    #[should_panic(expected = "state must be writable")]
    fn read_only_state_is_rejected() {
        let (mut p, frozen) = ([1.0_f32; 4], [0.0_f32; 4]);
        let state = [StorageView::read(&frozen)];
        let (p, g) = (StorageView::native(&mut p), StorageView::read(&[1.0; 4]));
        let _ = Segment::new(p, g, &[4], state, StepContext::default());
    }

    #[test]
    #[should_panic(expected = "at most 4 state arrays")]
    fn a_fifth_state_array_is_rejected() {
        let state = (0..5).map(|_| &mut [][..]);
        let _ = Segment::<f32>::native(&mut [], &[], &[0], state, StepContext::default());
    }

    #[test]
    #[should_panic(expected = "a parameter must have the size of its shape")]
    fn a_shape_whose_size_overflows_is_rejected() {
        let shape = [1 << (usize::BITS - 1), 2];
        let _ = Segment::<f32>::native(&mut [], &[], &shape, [], StepContext::default());
    }

    /// The position of the second of two segments of three elements in each array, and its step.
    #[derive(Clone, Copy)]
    struct Second {
        p: usize,
        g: usize,
        state: [usize; 2],
        step: u64,
        follows: bool,
    }

    const ADJACENT: Second = Second {
        p: 3,
        g: 3,
        state: [3; 2],
        step: 7,
        follows: true,
    };

    /// Returns whether the first segment, which starts at 0 and is at step 7, absorbs the second.
    /// Writes to all elements of the result.
    fn absorbed(second: Second) -> bool {
        let mut arrays = [[0.0_f64; 8]; 4];
        let starts = arrays.each_mut().map(|array| array.as_mut_ptr());
        // SAFETY: the views are inside the arrays, do not overlap, and come from pointers to whole
        // arrays.
        let view = |array: usize, at: usize| unsafe {
            let part = Raw::new(Encoding::F64, starts[array].add(at).cast(), 3);
            StorageView::from_raw(part, Rounding::Nearest)
        };
        let context = |step| StepContext {
            step,
            ..StepContext::default()
        };
        let state = [view(2, 0), view(3, 0)];
        let mut first = Segment::new(view(0, 0), view(1, 0), &[3], state, context(7));
        let state = [view(2, second.state[0]), view(3, second.state[1])];
        let (p, g) = (view(0, second.p), view(1, second.g));
        let mut next = Segment::new(p, g, &[3], state, context(second.step));
        if second.follows {
            // SAFETY: both segments point into the same arrays, by pointers to whole arrays.
            next = unsafe { next.follows() };
        }
        let absorbed = first.absorb(&next);
        assert_eq!(first.len(), if absorbed { 6 } else { 3 });
        first.check_elementwise(2);
        // SAFETY: the range is inside the segment, and no other code uses its elements any more.
        let Slices { p, g, state } = unsafe { first.slices::<2>(0, first.len()) };
        p.fill(1.0);
        for array in state {
            array.fill(1.0);
        }
        assert!(g.iter().all(|&g| g == 0.0));
        absorbed
    }

    #[test]
    fn a_segment_absorbs_a_segment_that_continues_all_arrays_at_an_equal_context() {
        assert!(absorbed(ADJACENT));
        for other in [
            Second { p: 4, ..ADJACENT },
            Second { g: 4, ..ADJACENT },
            Second {
                state: [4, 3],
                ..ADJACENT
            },
            Second {
                state: [3, 4],
                ..ADJACENT
            },
            Second {
                step: 8,
                ..ADJACENT
            },
            Second {
                follows: false,
                ..ADJACENT
            },
        ] {
            assert!(!absorbed(other));
        }
    }
}
