//! One parameter in one step: its memory, its shape and its context.

use crate::numeric::float::Float;
use crate::storage::view::StorageView;
use crate::sweep::epilogue::Epilogue;

/// The most state arrays that one rule has.
pub const MAX_STATE: usize = 4;

/// The most numbers that a parameter's state has beside its arrays and its step.
pub const MAX_SCALARS: usize = 3;

/// What a parameter's rule depends on besides the hyperparameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepContext {
    /// Which step of this parameter it is: 1 at the first.
    pub step: u64,
    /// Whether the state arrays hold nothing yet (zeros). Not the same as a first step: momentum
    /// may be switched on later, and loaded state may come without a count.
    pub fresh: bool,
    /// The numbers in its state, under the names of `Method::scalars`.
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
    /// What every element is shrunk by once it is updated.
    pub(crate) threshold: T,
    pub(crate) index: usize,
    pub(crate) context: StepContext,
}

impl<'a, T: Float> Segment<'a, T> {
    /// A parameter of some shape with its gradient and its state arrays.
    ///
    /// # Panics
    /// The gradient is not as long as the parameter, the shape is of another size, the parameter or
    /// a state array cannot be written, or there are more than [`MAX_STATE`] state arrays.
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
            "a gradient has the length of its parameter"
        );
        assert_eq!(
            Some(p.len()),
            size(shape),
            "a parameter has the size of its shape"
        );
        assert!(p.is_writable(), "a parameter can be written");
        let (mut state, mut slots) = (state.into_iter().fuse(), 0);
        let view = std::array::from_fn(|_| {
            let Some(array) = state.next() else {
                return StorageView::native(&mut []);
            };
            assert!(array.is_writable(), "state can be written");
            slots += 1;
            array
        });
        assert!(state.next().is_none(), "at most {MAX_STATE} state arrays");
        Self {
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

    /// A parameter all of whose arrays are kept as they are computed in.
    ///
    /// # Panics
    /// As `new`.
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

    /// Says what is done with the parameter and the gradient after the update.
    ///
    /// # Panics
    /// A target has another length, or the gradient is to be cleared and cannot be written.
    #[must_use]
    pub fn with_epilogue(self, epilogue: Epilogue<'a, T>) -> Self {
        epilogue.check(self.len());
        assert!(self.g.is_writable() || !epilogue.clear_gradient);
        Self {
            epilogue: Some(Box::new(epilogue)),
            ..self
        }
    }

    /// Says which parameter it is among all of a step.
    #[must_use]
    pub fn numbered(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Says that this segment's arrays come from the same allocations as those of the segment
    /// before it, so that one loop may run across both where they also touch.
    ///
    /// # Safety
    /// Each of its arrays (the parameter, the gradient and every state array) is in the same
    /// allocation as the one of the segment before it, and the pointers that
    /// [`StorageView::from_raw`] was given may reach over the whole of that allocation. Those of a slice
    /// may not: a segment of [`Segment::native`] follows none.
    #[must_use]
    pub unsafe fn follows(self) -> Self {
        Self {
            follows: true,
            ..self
        }
    }

    /// How many elements the parameter has.
    pub fn len(&self) -> usize {
        self.p.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.p.is_empty()
    }

    /// The parameter's shape.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The state arrays.
    pub(crate) fn state(&self) -> &[StorageView<'a, T>] {
        &self.view[..self.slots]
    }

    /// What is left to do after the update.
    pub(crate) fn epilogue(&self) -> Option<&Epilogue<'a, T>> {
        self.epilogue.as_deref()
    }

    /// Whether a rule may run over the caller's memory, and nothing is left to do after it.
    pub(crate) fn is_bare(&self) -> bool {
        let state = self.state().iter().all(StorageView::is_native);
        let followed = self.epilogue.is_some() || self.threshold > T::ZERO;
        !followed && self.p.is_native() && self.g.is_native() && state
    }

    /// # Panics
    /// There is not one array of its own length per state of a rule.
    pub(crate) fn check_elementwise(&self, states: usize) {
        assert_eq!(self.slots, states, "one array per state of the rule");
        for array in self.state() {
            assert_eq!(
                self.len(),
                array.len(),
                "state has the length of its parameter"
            );
        }
    }

    /// Takes `next` in, if it continues every array at the same context.
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

    /// Some of the elements of a bare elementwise segment.
    ///
    /// # Safety
    /// Every state array has the length of the parameter (`check_elementwise`), `from <= to <= len`,
    /// and nobody else has any of these elements while the result lives.
    pub(crate) unsafe fn slices<const S: usize>(&self, from: usize, to: usize) -> Slices<'_, T, S> {
        let bare = "all arrays lie as they are computed in";
        // SAFETY: `from..to` is inside all arrays, which are as long as the parameter, and nobody
        // else has these elements, both by this function's contract. `new` asked that parameter and
        // state can be written.
        unsafe {
            Slices {
                p: self.p.slice_mut(from, to).expect(bare),
                g: self.g.slice(from, to).expect(bare),
                state: std::array::from_fn(|j| self.view[j].slice_mut(from, to).expect(bare)),
            }
        }
    }
}

/// How many elements there are in an array of this shape, if they can be counted.
pub(crate) fn size(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1, |n: usize, &d| n.checked_mul(d))
}

/// The rule of each segment; neighbours at the same context share the making of it.
pub(crate) fn rules<T: Float, R: Copy>(
    segments: &[Segment<'_, T>],
    rule_at: impl Fn(StepContext) -> R,
) -> Vec<R> {
    let mut rules: Vec<R> = Vec::with_capacity(segments.len());
    for (index, segment) in segments.iter().enumerate() {
        rules.push(match index.checked_sub(1) {
            Some(previous) if segments[previous].context == segment.context => rules[previous],
            _ => rule_at(segment.context),
        });
    }
    rules
}

/// A stretch of a parameter, its gradient and its state.
pub(crate) struct Slices<'a, T, const S: usize> {
    pub(crate) p: &'a mut [T],
    pub(crate) g: &'a [T],
    pub(crate) state: [&'a mut [T]; S],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::view::Raw;
    use crate::storage::{Encoding, Rounding};

    #[test]
    #[should_panic(expected = "state can be written")]
    fn read_only_state_is_refused() {
        let (mut p, frozen) = ([1.0_f32; 4], [0.0_f32; 4]);
        let state = [StorageView::read(&frozen)];
        let (p, g) = (StorageView::native(&mut p), StorageView::read(&[1.0; 4]));
        let _ = Segment::new(p, g, &[4], state, StepContext::default());
    }

    #[test]
    #[should_panic(expected = "at most 4 state arrays")]
    fn a_fifth_state_array_is_refused() {
        let state = (0..5).map(|_| &mut [][..]);
        let _ = Segment::<f32>::native(&mut [], &[], &[0], state, StepContext::default());
    }

    #[test]
    #[should_panic(expected = "a parameter has the size of its shape")]
    fn a_shape_whose_size_wraps_is_refused() {
        let shape = [1 << (usize::BITS - 1), 2];
        let _ = Segment::<f32>::native(&mut [], &[], &shape, [], StepContext::default());
    }

    /// Where the second of two segments of three elements lies in each array, and its step.
    #[derive(Clone, Copy)]
    struct Second {
        p: usize,
        g: usize,
        state: [usize; 2],
        step: u64,
        follows: bool,
    }

    const NEIGHBOUR: Second = Second {
        p: 3,
        g: 3,
        state: [3; 2],
        step: 7,
        follows: true,
    };

    /// Whether the first, which lies at 0 at step 7, takes it in; and writes to all it then has.
    fn absorbed(second: Second) -> bool {
        let mut arrays = [[0.0_f64; 8]; 4];
        let starts = arrays.each_mut().map(|array| array.as_mut_ptr());
        // SAFETY: inside the arrays, through pointers to all of each; the two parts are apart.
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
            // SAFETY: the arrays are those of the first, whose pointers reach over all of them.
            next = unsafe { next.follows() };
        }
        let absorbed = first.absorb(&next);
        assert_eq!(first.len(), if absorbed { 6 } else { 3 });
        first.check_elementwise(2);
        // SAFETY: inside, and nobody else has any of it any more.
        let Slices { p, g, state } = unsafe { first.slices::<2>(0, first.len()) };
        p.fill(1.0);
        for array in state {
            array.fill(1.0);
        }
        assert!(g.iter().all(|&g| g == 0.0));
        absorbed
    }

    #[test]
    fn a_segment_absorbs_what_continues_all_of_its_arrays_at_its_clock() {
        assert!(absorbed(NEIGHBOUR));
        for other in [
            Second { p: 4, ..NEIGHBOUR },
            Second { g: 4, ..NEIGHBOUR },
            Second {
                state: [4, 3],
                ..NEIGHBOUR
            },
            Second {
                state: [3, 4],
                ..NEIGHBOUR
            },
            Second {
                step: 8,
                ..NEIGHBOUR
            },
            Second {
                follows: false,
                ..NEIGHBOUR
            },
        ] {
            assert!(!absorbed(other));
        }
    }
}
