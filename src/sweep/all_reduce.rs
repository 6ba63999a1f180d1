//! The communication of a step whose parameters are spread over several processes.

/// Combines the measurements of all processes of a sharded step.
///
/// Each process calls [`step::run`](crate::step::run) with the same options and the same groups in
/// the same order, and with the segments of its own parameters. All processes then make the same
/// calls of these methods in the same order, on the thread that called `run`.
pub trait AllReduce {
    /// The sums over all processes, number by number.
    fn sum(&self, own: [f64; 2]) -> [f64; 2];

    /// The maximum over all processes of a number that is not NaN.
    fn max(&self, own: f64) -> f64;
}

/// The only process of a step.
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
