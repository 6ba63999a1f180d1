//! The work of a step, divided into chunks that any thread may process.

use crate::exec::isa::{self, Tier};
use crate::exec::pool;
use crate::numeric::float::Float;
use crate::reduce::Partials;
use crate::sweep::all_reduce::AllReduce;
use crate::sweep::frozen::{Frozen, FrozenParameter};
use crate::sweep::segment::MAX_SCALARS;

/// Two sums over all parameters, which some rules need between their passes.
pub(crate) type Sums = [f64; 2];

/// The cost of an element in elements of an AdamW step in single precision, by its size.
pub(crate) const fn cost<T: Float>() -> usize {
    size_of::<T>() / size_of::<f32>()
}

/// A part of the work of a step, in one or two phases of chunks.
pub(crate) trait Driver: Send + Sync {
    /// Returns the number of phases: 1, or 2 if a sum over several chunks separates two passes.
    fn phases(&self) -> usize {
        1
    }

    /// Returns the sums over blocks that the first phase computed, of which other processes have a
    /// part if they take part in the step.
    fn blocks(&self) -> Option<&Partials> {
        None
    }

    /// Returns the contribution to the sums over all parameters, after the first phase.
    fn sums(&self) -> Sums {
        [0.0; 2]
    }

    /// Receives the sums over all parameters, before the second phase.
    fn resolve(&mut self, _totals: Sums) {}

    /// Returns the number of chunks of a phase, and their cost in elements of an AdamW step.
    fn chunks(&self, phase: usize) -> (usize, usize);

    /// Processes one chunk. Chunks of the same phase access disjoint elements; chunks of different
    /// phases may access the same elements.
    ///
    /// # Safety
    /// `phase` is below `phases()` and `chunk` is below the number of chunks of `chunks(phase)`. No
    /// chunk of a phase is processed twice, and a phase begins after all chunks of the previous
    /// phase have ended. Otherwise two calls could write the same elements concurrently.
    unsafe fn run(&self, phase: usize, chunk: usize, tier: Tier);

    /// Returns the scalars in the state of all parameters after the step, if the step computes
    /// them.
    fn scalars(&self) -> Option<[f64; MAX_SCALARS]> {
        None
    }
}

/// A part of the work of a step, run by [`run`].
pub(crate) struct Work<'a>(Box<dyn Driver + 'a>);

impl<'a> Work<'a> {
    pub(crate) fn new(driver: impl Driver + 'a) -> Self {
        Self(Box::new(driver))
    }

    /// Creates the work on parameters that have no gradient: updating their averages and copies.
    ///
    /// # Panics
    /// As [`Frozen::new`].
    pub(crate) fn frozen<T: Float>(parameters: &'a [FrozenParameter<'a, T>]) -> Self {
        Self::new(Frozen::new(parameters))
    }
}

/// Runs all the work of a step, with one fork-join per phase. Between the phases, `ranks` combines
/// the sums over blocks. Returns the scalars in the state of all parameters after the step, if the
/// step computes them.
pub(crate) fn run(works: Vec<Work<'_>>, ranks: &dyn AllReduce) -> Option<[f64; MAX_SCALARS]> {
    let mut drivers: Vec<_> = works.into_iter().map(|work| work.0).collect();
    let tier = isa::current();
    fork_join(&drivers, 0, tier);
    if !ranks.is_local() {
        combine(&drivers, ranks);
    }
    let add = |a: Sums, b: Sums| [a[0] + b[0], a[1] + b[1]];
    let sums = drivers.iter().map(|driver| driver.sums());
    let totals = sums.fold([0.0; 2], add);
    let second = drivers.iter().any(|driver| driver.phases() > 1);
    // A process without elements in the second phase needs the scalars, too.
    if second || !ranks.is_local() {
        for driver in &mut drivers {
            driver.resolve(totals);
        }
    }
    if second {
        fork_join(&drivers, 1, tier);
    }
    drivers.iter().find_map(|driver| driver.scalars())
}

/// Adds the blocks of other processes.
fn combine(drivers: &[Box<dyn Driver + '_>], ranks: &dyn AllReduce) {
    let partials: Vec<&Partials> = drivers.iter().filter_map(|one| one.blocks()).collect();
    let blocks = |partials: &Partials| (0..partials.len()).map(|i| partials.get(i)).collect();
    let mut all: Vec<f64> = partials
        .iter()
        .copied()
        .flat_map(|it| -> Vec<f64> { blocks(it) })
        .collect();
    if all.is_empty() {
        return;
    }
    ranks.sum(&mut all);
    let mut all = all.into_iter();
    for partials in partials {
        for (block, sum) in (0..partials.len()).zip(&mut all) {
            partials.set(block, sum);
        }
    }
}

fn fork_join(drivers: &[Box<dyn Driver + '_>], phase: usize, tier: Tier) {
    let mut ends = Vec::with_capacity(drivers.len());
    let (mut chunks, mut elements) = (0, 0);
    for driver in drivers {
        // Other drivers may have more phases than this one.
        let (more, cost) = if phase < driver.phases() {
            driver.chunks(phase)
        } else {
            (0, 0)
        };
        chunks += more;
        elements += cost;
        ends.push(chunks);
    }
    pool::run(chunks, elements, |chunk| {
        let owner = ends.partition_point(|&end| end <= chunk);
        let first = if owner == 0 { 0 } else { ends[owner - 1] };
        // SAFETY: the chunk is below `ends[owner]`, so it is a chunk of this driver, which has no
        // chunks in phases that it lacks. `pool::run` calls each index once and returns after all
        // calls have ended, and `run`, the only caller, runs each phase once and in order.
        unsafe { drivers[owner].run(phase, chunk - first, tier) }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sweep::all_reduce::Local;

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
    fn work_with_one_phase_runs_once_beside_work_with_two() {
        let runs = [const { AtomicUsize::new(0) }; 2];
        let work = |phases: usize| {
            let runs = &runs[phases - 1];
            Work::new(Counted { phases, runs })
        };
        assert_eq!(run(vec![work(1), work(2)], &Local), None);
        assert_eq!(runs.map(AtomicUsize::into_inner), [3, 6]);
    }
}
