//! One parameter in one step: its memory, its shape and its clock.

use std::marker::PhantomData;

use crate::float::Float;

/// The most state arrays that one rule has.
pub const MAX_STATE: usize = 4;

/// The most numbers that a parameter's state has beside its arrays and its step.
pub const MAX_SCALARS: usize = 3;

/// What a parameter's rule depends on besides the hyperparameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock {
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
    p: *mut T,
    g: *const T,
    state: [(*mut T, usize); MAX_STATE],
    slots: usize,
    len: usize,
    shape: &'a [usize],
    follows: bool,
    pub(crate) clock: Clock,
    memory: PhantomData<&'a mut T>,
}

// SAFETY: a segment stands for the exclusive borrows (and one shared) that it was made from, and
// those can be sent to and shared with other threads for any `Float`.
unsafe impl<T: Float> Send for Segment<'_, T> {}
// SAFETY: as above; the drivers hand each element to one thread only.
unsafe impl<T: Float> Sync for Segment<'_, T> {}

impl<'a, T: Float> Segment<'a, T> {
    /// A parameter `p` of some shape with its gradient and its state arrays.
    ///
    /// # Panics
    /// The gradient is not as long as the parameter, the shape is of another size, or there are
    /// more than [`MAX_STATE`] state arrays.
    pub fn new<I>(p: &'a mut [T], g: &'a [T], shape: &'a [usize], state: I, clock: Clock) -> Self
    where
        I: IntoIterator<Item = &'a mut [T]>,
    {
        let len = p.len();
        assert_eq!(len, g.len(), "a gradient has the length of its parameter");
        assert_eq!(
            len,
            shape.iter().product(),
            "a parameter has the size of its shape"
        );
        let mut segment = Self {
            p: p.as_mut_ptr(),
            g: g.as_ptr(),
            state: [(std::ptr::null_mut(), 0); MAX_STATE],
            slots: 0,
            len,
            shape,
            follows: false,
            clock,
            memory: PhantomData,
        };
        for array in state {
            segment.state[segment.slots] = (array.as_mut_ptr(), array.len());
            segment.slots += 1;
        }
        segment
    }

    /// Says that this segment's arrays come from the same allocations as those of the segment
    /// before it, so that one loop may run across both where they also touch.
    ///
    /// # Safety
    /// They do, and the pointers behind the slices that both were made from may reach over the
    /// whole allocation.
    #[must_use]
    pub unsafe fn follows(self) -> Self {
        Self {
            follows: true,
            ..self
        }
    }

    /// How many elements the parameter has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parameter's shape.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The gradient.
    pub fn gradient(&self) -> &'a [T] {
        // SAFETY: as it was borrowed; nothing writes a gradient.
        unsafe { std::slice::from_raw_parts(self.g, self.len) }
    }

    /// The segment itself, which must have one array of its own length per state.
    pub(crate) fn elementwise(self, states: usize) -> Self {
        assert_eq!(self.slots, states, "one array per state of the rule");
        for (_, len) in &self.state[..states] {
            assert_eq!(self.len, *len, "state has the length of its parameter");
        }
        self
    }

    /// Takes `next` in, if it continues every array at the same clock.
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        let n = self.len;
        let continues = next.follows
            && self.clock == next.clock
            && self.p.wrapping_add(n) == next.p
            && std::ptr::eq(self.g.wrapping_add(n), next.g)
            && (0..self.slots).all(|j| self.state[j].0.wrapping_add(n) == next.state[j].0);
        if continues {
            self.len += next.len;
        }
        continues
    }

    /// Some of the elements of an elementwise segment.
    ///
    /// # Safety
    /// `from <= to <= len`, and nobody else has any of these elements while the result lives.
    pub(crate) unsafe fn slices<const S: usize>(&self, from: usize, to: usize) -> Slices<'_, T, S> {
        debug_assert!(from <= to && to <= self.len);
        // SAFETY: inside the borrows that the segment stands for; the caller has them alone.
        unsafe {
            let n = to - from;
            Slices {
                p: std::slice::from_raw_parts_mut(self.p.add(from), n),
                g: std::slice::from_raw_parts(self.g.add(from), n),
                state: std::array::from_fn(|j| {
                    std::slice::from_raw_parts_mut(self.state[j].0.add(from), n)
                }),
            }
        }
    }

    /// All of the elements, with state of whatever length.
    pub(crate) fn into_slices(self) -> (&'a mut [T], &'a [T], Vec<&'a mut [T]>) {
        let slice = |&(data, len): &(*mut T, usize)| {
            // SAFETY: as it was borrowed, and the segment is consumed.
            unsafe { std::slice::from_raw_parts_mut(data, len) }
        };
        (
            slice(&(self.p, self.len)),
            self.gradient(),
            self.state[..self.slots].iter().map(slice).collect(),
        )
    }
}

/// The rule of each segment; neighbours at the same clock share the making of it.
pub(crate) fn rules<T: Float, R: Copy>(
    segments: &[Segment<'_, T>],
    rule_at: impl Fn(Clock) -> R,
) -> Vec<R> {
    let mut rules: Vec<R> = Vec::with_capacity(segments.len());
    for (index, segment) in segments.iter().enumerate() {
        rules.push(match index.checked_sub(1) {
            Some(previous) if segments[previous].clock == segment.clock => rules[previous],
            _ => rule_at(segment.clock),
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

impl<T, const S: usize> Slices<'_, T, S> {
    /// The elements of `from..to`.
    pub(crate) fn part(&mut self, from: usize, to: usize) -> Slices<'_, T, S> {
        Slices {
            p: &mut self.p[from..to],
            g: &self.g[from..to],
            state: self.state.each_mut().map(|array| &mut array[from..to]),
        }
    }
}
