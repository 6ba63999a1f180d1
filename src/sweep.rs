//! The driver of the optimizers: prepare the gradient, apply the rule.
//!
//! In the plain case, where the gradient is only scaled, the rule's own loop runs over the caller's
//! memory. Anything more is done block by block in a buffer that stays in the L1 cache, and the
//! same loop then runs over that: one machine loop per rule, whatever is fused around it.

use std::marker::PhantomData;

use crate::float::Float;
use crate::isa::{self, Kernel, Tier};
use crate::optim::{Clock, Rule};
use crate::threads;

/// The most state arrays that one rule has.
pub const MAX_STATE: usize = 4;

/// Elements per chunk of parallel work: the four arrays of an `f32` AdamW then take 256 KiB, a
/// share of an L2 cache, and taking a chunk from the counter costs under 1% of working on it.
const CHUNK: usize = 16 * 1024;

/// Elements prepared at a time: 4 KiB of `f32`, which leaves room for the rule's arrays in L1.
const STAGE: usize = 1024;

/// One parameter in one step: its memory and its clock.
#[derive(Debug)]
pub struct Segment<'a, T> {
    p: *mut T,
    g: *const T,
    state: [*mut T; MAX_STATE],
    slots: usize,
    len: usize,
    clock: Clock,
    memory: PhantomData<&'a mut T>,
}

// SAFETY: a segment stands for the exclusive borrows (and one shared) that it was made from, and
// those can be sent to and shared with other threads for any `Float`.
unsafe impl<T: Float> Send for Segment<'_, T> {}
// SAFETY: as above; `Sweep` hands each element to one thread only.
unsafe impl<T: Float> Sync for Segment<'_, T> {}

impl<'a, T: Float> Segment<'a, T> {
    /// A parameter `p` with its gradient and state arrays, all of one length.
    ///
    /// # Panics
    /// The lengths differ, or there are more than [`MAX_STATE`] state arrays.
    pub fn new<I>(p: &'a mut [T], g: &'a [T], state: I, clock: Clock) -> Self
    where
        I: IntoIterator<Item = &'a mut [T]>,
    {
        assert_eq!(
            p.len(),
            g.len(),
            "a gradient has the length of its parameter"
        );
        let mut segment = Self {
            p: p.as_mut_ptr(),
            g: g.as_ptr(),
            state: [std::ptr::null_mut(); MAX_STATE],
            slots: 0,
            len: p.len(),
            clock,
            memory: PhantomData,
        };
        for array in state {
            assert_eq!(
                p.len(),
                array.len(),
                "state has the length of its parameter"
            );
            segment.state[segment.slots] = array.as_mut_ptr();
            segment.slots += 1;
        }
        segment
    }

    /// Whether `next` continues every array of `self` at the same clock: one segment then serves
    /// both.
    fn continues_in(&self, next: &Self) -> bool {
        let n = self.len;
        self.clock == next.clock
            && self.p.wrapping_add(n) == next.p
            && self.g.wrapping_add(n) == next.g
            && (0..self.slots).all(|j| self.state[j].wrapping_add(n) == next.state[j])
    }
}

/// What is done to a gradient before its rule sees it:
/// `coefficient * clamp(scale * g, clip_value) + weight_decay * p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prepare {
    /// Unscaling, negation where the objective is maximized.
    pub scale: f64,
    /// The bound of clipping by value; infinite for none.
    pub clip_value: f64,
    /// The coefficient of clipping by norm.
    pub coefficient: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
}

impl Default for Prepare {
    fn default() -> Self {
        Self {
            scale: 1.0,
            clip_value: f64::INFINITY,
            coefficient: 1.0,
            weight_decay: 0.0,
        }
    }
}

impl Prepare {
    /// The one factor that is all there is to do, if it is.
    fn plain<T: Float>(&self) -> Option<T> {
        let factor = T::from_f64(self.scale * self.coefficient);
        // A subnormal factor has lost digits that its two parts still have.
        let exact = factor.abs() >= T::MIN_POSITIVE;
        (exact && self.clip_value == f64::INFINITY && self.weight_decay == 0.0).then_some(factor)
    }
}

/// Some of a step's work, cut into chunks that any thread may take.
pub trait Work: Sync {
    /// How many chunks.
    fn chunks(&self) -> usize;
    /// How many elements in all.
    fn elements(&self) -> usize;
    /// Does one chunk. Every chunk must be done exactly once.
    ///
    /// # Safety
    /// No chunk is done twice: two threads in one chunk would write the same memory.
    unsafe fn run(&self, chunk: usize, tier: Tier);
}

/// Does all the work with one fork-join.
pub fn run(works: Vec<Box<dyn Work + '_>>) {
    let tier = isa::current();
    let mut ends = Vec::with_capacity(works.len());
    let mut chunks = 0;
    for work in &works {
        chunks += work.chunks();
        ends.push(chunks);
    }
    let elements = works.iter().map(|work| work.elements()).sum();
    threads::run(chunks, elements, |chunk| {
        let owner = ends.partition_point(|&end| end <= chunk);
        let first = if owner == 0 { 0 } else { ends[owner - 1] };
        // SAFETY: `threads::run` calls each index once, and `works` is consumed.
        unsafe { works[owner].run(chunk - first, tier) }
    });
}

/// Segments under one type of rule.
pub struct Sweep<'a, T, R, const S: usize> {
    segments: Vec<Segment<'a, T>>,
    /// Where each segment ends when all are laid end to end.
    ends: Vec<usize>,
    rules: Vec<R>,
    prepare: Prepare,
}

impl<'a, T: Float, const S: usize, R: Rule<T, S>> Sweep<'a, T, R, S> {
    /// A sweep over `segments` by the rule that each one's clock gives.
    ///
    /// # Panics
    /// A segment has not `S` state arrays.
    pub fn new(
        segments: Vec<Segment<'a, T>>,
        prepare: Prepare,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self {
        let mut merged: Vec<Segment<'a, T>> = Vec::with_capacity(segments.len());
        for segment in segments {
            assert_eq!(segment.slots, S, "one array per state of the rule");
            match merged.last_mut() {
                Some(last) if last.continues_in(&segment) => last.len += segment.len,
                _ => merged.push(segment),
            }
        }
        let mut ends = Vec::with_capacity(merged.len());
        let mut rules: Vec<R> = Vec::with_capacity(merged.len());
        let mut end = 0;
        let mut previous = None;
        for segment in &merged {
            end += segment.len;
            ends.push(end);
            let rule = match (previous, rules.last()) {
                (Some(clock), Some(&rule)) if clock == segment.clock => rule,
                _ => rule_at(segment.clock),
            };
            previous = Some(segment.clock);
            rules.push(rule);
        }
        Self {
            segments: merged,
            ends,
            rules,
            prepare,
        }
    }
}

impl<T: Float, const S: usize, R: Rule<T, S>> Work for Sweep<'_, T, R, S> {
    fn chunks(&self) -> usize {
        self.elements().div_ceil(CHUNK)
    }

    fn elements(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    unsafe fn run(&self, chunk: usize, tier: Tier) {
        let (from, to) = (chunk * CHUNK, self.elements().min((chunk + 1) * CHUNK));
        let mut index = self.ends.partition_point(|&end| end <= from);
        let mut at = from;
        while at < to {
            let segment = &self.segments[index];
            let start = self.ends[index] - segment.len;
            let end = self.ends[index].min(to);
            let (offset, n) = (at - start, end - at);
            // SAFETY: inside the segment, whose memory is borrowed exclusively for as long as
            // `self` lives; no other chunk holds these elements and no chunk is run twice.
            let piece = unsafe {
                Piece {
                    rule: self.rules[index],
                    scale: T::ONE,
                    p: std::slice::from_raw_parts_mut(segment.p.add(offset), n),
                    g: std::slice::from_raw_parts(segment.g.add(offset), n),
                    state: std::array::from_fn(|j| {
                        std::slice::from_raw_parts_mut(segment.state[j].add(offset), n)
                    }),
                }
            };
            match self.prepare.plain() {
                Some(scale) => tier.run(Piece { scale, ..piece }),
                None => staged(piece, &self.prepare, tier),
            }
            at = end;
            index += 1;
        }
    }
}

/// A stretch of one segment: the loop that everything comes down to.
struct Piece<'a, T, R, const S: usize> {
    rule: R,
    scale: T,
    p: &'a mut [T],
    g: &'a [T],
    state: [&'a mut [T]; S],
}

impl<T: Float, const S: usize, R: Rule<T, S>> Kernel for Piece<'_, T, R, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            rule,
            scale,
            p,
            g,
            state,
        } = self;
        let n = p.len();
        assert_eq!(g.len(), n);
        for array in &state {
            assert_eq!(array.len(), n);
        }
        for i in 0..n {
            let mut old = [T::ZERO; S];
            for j in 0..S {
                old[j] = state[j][i];
            }
            let (new_p, new) = rule.update(p[i], g[i] * scale, old);
            p[i] = new_p;
            for j in 0..S {
                state[j][i] = new[j];
            }
        }
    }
}

/// Prepares a block of gradients at a time in L1 and runs the rule on it.
fn staged<T: Float, const S: usize, R: Rule<T, S>>(
    mut piece: Piece<'_, T, R, S>,
    prepare: &Prepare,
    tier: Tier,
) {
    let mut stage = [T::ZERO; STAGE];
    let n = piece.p.len();
    for from in (0..n).step_by(STAGE) {
        let to = n.min(from + STAGE);
        let g = &mut stage[..to - from];
        tier.run(Prepared {
            scale: T::from_f64(prepare.scale),
            clip_value: T::from_f64(prepare.clip_value),
            coefficient: T::from_f64(prepare.coefficient),
            weight_decay: T::from_f64(prepare.weight_decay),
            p: &piece.p[from..to],
            g: &piece.g[from..to],
            out: &mut *g,
        });
        tier.run(Piece {
            rule: piece.rule,
            scale: T::ONE,
            p: &mut piece.p[from..to],
            g,
            state: piece.state.each_mut().map(|array| &mut array[from..to]),
        });
    }
}

struct Prepared<'a, T> {
    scale: T,
    clip_value: T,
    coefficient: T,
    weight_decay: T,
    p: &'a [T],
    g: &'a [T],
    out: &'a mut [T],
}

impl<T: Float> Kernel for Prepared<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            scale,
            clip_value,
            coefficient,
            weight_decay,
            p,
            g,
            out,
        } = self;
        let n = out.len();
        let (p, g) = (&p[..n], &g[..n]);
        if weight_decay == T::ZERO {
            // Not a term of 0: a parameter that is infinite would make it NaN.
            for i in 0..n {
                out[i] = coefficient * (scale * g[i]).clamp_abs(clip_value);
            }
        } else {
            for i in 0..n {
                out[i] = coefficient * (scale * g[i]).clamp_abs(clip_value) + weight_decay * p[i];
            }
        }
    }
}
