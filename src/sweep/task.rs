//! A step's work, cut into chunks that any thread may take.

use crate::exec::isa::{self, Tier};
use crate::exec::pool;
use crate::numeric::float::Float;
use crate::sweep::frozen::{Frozen, FrozenParameter};
use crate::sweep::segment::MAX_SCALARS;

/// Two sums over all parameters, for rules that need them between their passes.
pub(crate) type Sums = [f64; 2];

/// What does some of a step's work, in one or two phases of chunks.
pub(crate) trait Driver: Send + Sync {
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

    /// Does one chunk. The chunks of one phase touch different elements, those of different phases
    /// the same ones.
    ///
    /// # Safety
    /// `phase` is below `phases()` and `chunk` below the number of `chunks(phase)`. No chunk of a
    /// phase is done twice, and a phase is begun only when all of the phase before it has ended: two
    /// calls at once would write the same elements.
    unsafe fn run(&self, phase: usize, chunk: usize, tier: Tier);

    /// The numbers in the state of all parameters after the step, where the step itself finds them.
    fn scalars(&self) -> Option<[f64; MAX_SCALARS]> {
        None
    }
}

/// Some of a step's work, which [`run`] does.
pub(crate) struct Work<'a>(Box<dyn Driver + 'a>);

impl<'a> Work<'a> {
    pub(crate) fn new(driver: impl Driver + 'a) -> Self {
        Self(Box::new(driver))
    }

    /// The work on parameters that have no gradient: averages and copies follow them.
    ///
    /// # Panics
    /// What follows a parameter, or its first state array, has another length, or cannot be written.
    pub(crate) fn frozen<T: Float>(parameters: Vec<FrozenParameter<'a, T>>) -> Self {
        Self::new(Frozen::new(parameters))
    }
}

/// Does all the work of a step together, one fork-join per phase. After the first, `reduce` gets the
/// sums over all parameters and returns those that the second works by. Returns the numbers in the
/// state of all parameters after the step, where the step itself finds them.
pub(crate) fn run(
    works: Vec<Work<'_>>,
    reduce: impl FnOnce(Sums) -> Sums,
) -> Option<[f64; MAX_SCALARS]> {
    let mut drivers: Vec<_> = works.into_iter().map(|work| work.0).collect();
    let tier = isa::current();
    fork_join(&drivers, 0, tier);
    let add = |a: Sums, b: Sums| [a[0] + b[0], a[1] + b[1]];
    let sums = drivers.iter().map(|driver| driver.sums());
    let totals = reduce(sums.fold([0.0; 2], add));
    if drivers.iter().any(|driver| driver.phases() > 1) {
        for driver in &mut drivers {
            driver.resolve(totals);
        }
        fork_join(&drivers, 1, tier);
    }
    drivers.iter().find_map(|driver| driver.scalars())
}

fn fork_join(drivers: &[Box<dyn Driver + '_>], phase: usize, tier: Tier) {
    let mut ends = Vec::with_capacity(drivers.len());
    let (mut chunks, mut elements) = (0, 0);
    for driver in drivers {
        // Others may have phases that this one lacks.
        let (more, size) = if phase < driver.phases() {
            driver.chunks(phase)
        } else {
            (0, 0)
        };
        chunks += more;
        elements += size;
        ends.push(chunks);
    }
    pool::run(chunks, elements, |chunk| {
        let owner = ends.partition_point(|&end| end <= chunk);
        let first = if owner == 0 { 0 } else { ends[owner - 1] };
        // SAFETY: the chunk is below `ends[owner]`, so the driver has it, and it has the phase, as it
        // has no chunks in others. `pool::run` calls each index once and returns when all calls
        // have ended; `run`, which alone comes here, asks for each phase once and in order.
        unsafe { drivers[owner].run(phase, chunk - first, tier) }
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

    impl Driver for Counted<'_> {
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
        let work = |phases: usize| {
            let runs = &runs[phases - 1];
            Work::new(Counted { phases, runs })
        };
        assert_eq!(run(vec![work(1), work(2)], |sums| sums), None);
        assert_eq!(runs.map(AtomicUsize::into_inner), [3, 6]);
    }
}
