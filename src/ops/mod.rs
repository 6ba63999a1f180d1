//! Operations on whole arrays beside the step: norms, clipping, penalties, averages.

pub mod clip;
pub mod lerp;
pub(crate) mod matmul;
pub mod normal;
pub mod penalty;
pub mod sam;
