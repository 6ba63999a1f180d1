//! The driver of rules that see whole arrays, by their shape.

use std::sync::Mutex;

use crate::float::Float;
use crate::isa::Tier;
use crate::prepare::Prepare;
use crate::rule::Whole;
use crate::segment::{Clock, Segment, rules};
use crate::threads::{self, CHUNK};
use crate::work::Work;

type Task<'a, T, R> = Mutex<Option<(Segment<'a, T>, R)>>;

/// Segments under one type of rule.
pub struct Wholes<'a, T, R> {
    /// Each with its rule, until it is done.
    tasks: Vec<Task<'a, T, R>>,
    elements: usize,
    prepare: Prepare,
}

impl<'a, T: Float, R: Whole<T>> Wholes<'a, T, R> {
    /// The work over `segments` by the rule that each one's clock gives.
    pub fn new(
        segments: Vec<Segment<'a, T>>,
        prepare: Prepare,
        rule_at: impl Fn(Clock) -> R,
    ) -> Self {
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

impl<T: Float, R: Whole<T>> Work for Wholes<'_, T, R> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        (self.tasks.len(), self.elements)
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let task = self.tasks[chunk]
            .lock()
            .ok()
            .and_then(|mut task| task.take());
        let (segment, rule) = task.expect("each chunk is done once");
        let shape = segment.shape();
        let (p, g, state) = segment.into_slices();
        if self.prepare == Prepare::default() {
            return rule.update(shape, p, g, state, tier);
        }
        let mut prepared = vec![T::ZERO; g.len()];
        threads::for_chunks(&mut prepared, CHUNK, g.len() / 2, |from, out| {
            let to = from + out.len();
            self.prepare.write(&p[from..to], &g[from..to], out, tier);
        });
        rule.update(shape, p, &prepared, state, tier);
    }
}
