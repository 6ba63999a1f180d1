//! The communication of a step whose parameters are distributed over several processes.

/// Combines the measurements of all processes of a sharded step.
///
/// Each process calls [`step::run`](crate::step::run) with the same options and the same groups in
/// the same order, and with the segments of its own parameters. All processes then make the same
/// calls of these methods in the same order, on the thread that called `run`.
pub trait AllReduce {
    /// Returns the elementwise sums over all processes.
    fn sum(&self, own: [f64; 2]) -> [f64; 2];

    /// Returns the maximum over all processes. `own` is not NaN.
    fn max(&self, own: f64) -> f64;
}

/// The communication of a step in one process: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl AllReduce for Local {
    fn sum(&self, own: [f64; 2]) -> [f64; 2] {
        own
    }

    fn max(&self, own: f64) -> f64 {
        own
    }
}
