//! The communication of a step whose parameters are distributed over several processes.

/// Combines the measurements of all processes of a sharded step.
///
/// Each process calls [`step::run`](crate::step::run) with the same options and the same groups of
/// the same parameters in the same order, and with its own parts of them
/// ([`Segment::part_of`](crate::step::Segment::part_of)), which may be empty. All processes then
/// make the same calls of these methods in the same order, on the thread that called `run`.
pub trait AllReduce {
    /// Replaces each number by its sum over all processes. At most one process has a number other
    /// than 0 there, so the order of the sum does not matter.
    fn sum(&self, own: &mut [f64]);

    /// Returns the maximum over all processes. `own` is not NaN.
    fn max(&self, own: f64) -> f64;

    /// Returns whether there is only one process, so that there is nothing to combine.
    fn is_local(&self) -> bool {
        false
    }
}

/// The communication of a step in one process: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl AllReduce for Local {
    fn sum(&self, _own: &mut [f64]) {}

    fn max(&self, own: f64) -> f64 {
        own
    }

    fn is_local(&self) -> bool {
        true
    }
}
