//! A step's work, cut into chunks that any thread may take.

use crate::isa::{self, Tier};
use crate::segment::MAX_SCALARS;
use crate::threads;

/// Two sums over all parameters, for rules that need them between their passes.
pub type Sums = [f64; 2];

/// Some of a step's work. All of a step's works are done together, one fork-join per phase.
pub trait Work: Send + Sync {
    /// How often the threads meet: 1, or 2 where something is summed over many chunks first.
    fn phases(&self) -> usize {
        1
    }

    /// What this work adds to the sums over all parameters, once its first phase is done.
    fn sums(&self) -> Sums {
        [0.0; 2]
    }

    /// Takes the sums over all parameters, before the second phase.
    fn resolve(&mut self, _totals: Sums) {}

    /// How many chunks one of its phases has, and how many elements in all.
    fn chunks(&self, phase: usize) -> (usize, usize);

    /// Does one chunk. Every chunk of every phase must be done exactly once.
    ///
    /// # Safety
    /// No chunk is done twice: two threads in one chunk would write the same memory.
    unsafe fn run(&self, phase: usize, chunk: usize, tier: Tier);

    /// The numbers in the state of all parameters after the step, where the step itself finds them.
    fn scalars(&self) -> Option<[f64; MAX_SCALARS]> {
        None
    }
}

/// Does all the work, and returns the works for what they have found.
pub fn run(mut works: Vec<Box<dyn Work + '_>>) -> Vec<Box<dyn Work + '_>> {
    let tier = isa::current();
    let phases = works.iter().map(|work| work.phases()).max().unwrap_or(0);
    for phase in 0..phases {
        if phase == 1 {
            let add = |a: Sums, b: Sums| [a[0] + b[0], a[1] + b[1]];
            let totals = works.iter().map(|work| work.sums()).fold([0.0; 2], add);
            for work in &mut works {
                work.resolve(totals);
            }
        }
        fork_join(&works, phase, tier);
    }
    works
}

fn fork_join(works: &[Box<dyn Work + '_>], phase: usize, tier: Tier) {
    let mut ends = Vec::with_capacity(works.len());
    let (mut chunks, mut elements) = (0, 0);
    for work in works {
        // Others may have phases that this one lacks.
        let (more, size) = if phase < work.phases() {
            work.chunks(phase)
        } else {
            (0, 0)
        };
        chunks += more;
        elements += size;
        ends.push(chunks);
    }
    threads::run(chunks, elements, |chunk| {
        let owner = ends.partition_point(|&end| end <= chunk);
        let first = if owner == 0 { 0 } else { ends[owner - 1] };
        // SAFETY: `threads::run` calls each index once, and each phase comes once.
        unsafe { works[owner].run(phase, chunk - first, tier) }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counted<'a> {
        phases: usize,
        runs: &'a AtomicUsize,
    }

    impl Work for Counted<'_> {
        fn phases(&self) -> usize {
            self.phases
        }

        fn chunks(&self, _phase: usize) -> (usize, usize) {
            (3, 3)
        }

        unsafe fn run(&self, _phase: usize, _chunk: usize, _tier: Tier) {
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_work_of_one_phase_is_done_once_beside_one_of_two() {
        let runs = [const { AtomicUsize::new(0) }; 2];
        let work = |phases: usize| -> Box<dyn Work + '_> {
            let runs = &runs[phases - 1];
            Box::new(Counted { phases, runs })
        };
        run(vec![work(1), work(2)]);
        assert_eq!(runs.map(AtomicUsize::into_inner), [3, 6]);
    }
}
