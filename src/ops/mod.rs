//! Operations on whole arrays outside of a step: norms, clipping, penalties, averages, and the
//! kernels that steps share with them.

pub mod clip;
pub mod lerp;
pub(crate) mod matmul;
pub mod normal;
pub mod penalty;
pub mod sam;
