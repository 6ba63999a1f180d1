//! The driver of rules that see whole arrays, by their shape.

use std::sync::Mutex;

use crate::exec::isa::Tier;
use crate::exec::pool::{self, CHUNK};
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::storage::view::Cells;
use crate::sweep::prologue::{Prepare, STAGE};
use crate::sweep::rule::Whole;
use crate::sweep::segment::{Clock, Segment, rules, size};
use crate::sweep::task::Driver;

type Task<'a, T, R> = Mutex<Option<(Segment<'a, T>, R)>>;

/// Segments under one type of rule.
pub(crate) struct Wholes<'a, T, R> {
    /// Each with its rule, until it is done.
    tasks: Vec<Task<'a, T, R>>,
    elements: usize,
    prepare: Prepare,
}

impl<'a, T: Float, R: Whole<T>> Wholes<'a, T, R> {
    /// The work over `segments` by the rule that each one's clock gives.
    ///
    /// # Panics
    /// A segment has not the state arrays of the rule, each of its own size.
    pub(crate) fn new(
        segments: Vec<Segment<'a, T>>,
        prepare: Prepare,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self {
        for segment in &segments {
            let (shape, state) = (segment.shape(), segment.state());
            let names = R::state(shape.len());
            assert_eq!(state.len(), names.len(), "one array per state of the rule");
            for (name, array) in names.iter().zip(state) {
                assert_eq!(
                    Some(array.len()),
                    size(&R::state_shape(name, shape)),
                    "{name} has the size that the rule gives it"
                );
            }
        }
        let rules = rules(&segments, rule_at);
        Self {
            elements: segments.iter().map(Segment::len).sum(),
            tasks: segments
                .into_iter()
                .zip(rules)
                .map(|task| Mutex::new(Some(task)))
                .collect(),
            prepare,
        }
    }
}

impl<T: Float, R: Whole<T>> Driver for Wholes<'_, T, R> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        (self.tasks.len(), self.elements)
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let task = self.tasks[chunk]
            .lock()
            .ok()
            .and_then(|mut task| task.take());
        let (segment, rule) = task.expect("each chunk is done once");
        // SAFETY: the segment was taken from its place, so nobody else has it.
        unsafe { update(segment, rule, &self.prepare, tier) }
    }
}

/// # Safety
/// Nobody else has the segment's elements, nor those of what follows it.
unsafe fn update<T: Float, R: Whole<T>>(
    segment: Segment<'_, T>,
    rule: R,
    prepare: &Prepare,
    tier: Tier,
) {
    let n = segment.len();
    let loaded = |cells: &Cells<'_, T>| {
        let mut copy = vec![T::ZERO; cells.len()];
        pool::for_chunks(&mut copy, CHUNK, cells.len() / 2, |from, out| {
            // SAFETY: `copy`, of which `out` is a chunk from `from` on, is as long as the cells; nobody
            // else has them by this function's contract, and here they are only read.
            unsafe { cells.load(from, out, tier) };
        });
        copy
    };
    let mut states: Vec<Option<Vec<T>>> = segment
        .state()
        .iter()
        .map(|cells| (!cells.is_native()).then(|| loaded(cells)))
        .collect();
    let mut p_copy = (!segment.p.is_native()).then(|| loaded(&segment.p));
    let g_copy = (!segment.g.is_native()).then(|| loaded(&segment.g));
    // SAFETY: whole arrays and parts of them are inside. Nobody else has them by this function's
    // contract, and here each is borrowed once at a time: gradients that lie where they are read are
    // last used by the rule. `Segment::new` asked that parameter and state can be written, and
    // `Segment::finishing` that the targets can and are as long, and the gradient where it is cleared.
    unsafe {
        let lies = "a native array lies where it can be worked on";
        let g = g_copy
            .as_deref()
            .or_else(|| segment.g.slice(0, n))
            .expect(lies);
        let mut prepared = Vec::new();
        let g = if *prepare == Prepare::default() {
            g
        } else {
            prepared.resize(n, T::ZERO);
            let p = p_copy
                .as_deref()
                .or_else(|| segment.p.slice(0, n))
                .expect(lies);
            pool::for_chunks(&mut prepared, CHUNK, n / 2, |from, out| {
                let to = from + out.len();
                prepare.write(&p[from..to], &g[from..to], out, tier);
            });
            &prepared
        };
        let p = p_copy
            .as_deref_mut()
            .or_else(|| segment.p.slice_mut(0, n))
            .expect(lies);
        let arrays = segment.state().iter().zip(&mut states);
        let state = arrays.map(|(cells, copy)| {
            let copy = copy.as_deref_mut();
            copy.or_else(|| cells.slice_mut(0, cells.len()))
                .expect(lies)
        });
        rule.update(segment.shape(), p, g, state.collect(), tier);
        let copies = segment.state().iter().zip(&states);
        for (cells, copy) in copies.chain([(&segment.p, &p_copy)]) {
            if let Some(copy) = copy {
                cells.store(0, copy, tier);
            }
        }
        let Some(finish) = segment.finish() else {
            return;
        };
        let mut scratch = Scratch::<T, 1>::new(STAGE);
        let [stage] = scratch.arrays();
        for from in (0..n).step_by(STAGE) {
            let to = n.min(from + STAGE);
            let p = segment.p.read_into(from, &mut stage[..to - from], tier);
            finish.block(from, p, None, tier);
        }
        if finish.clear_gradient {
            segment.g.clear(0, n);
        }
    }
}
