//! Execution: instruction sets, threads and their scratch memory.

pub mod ceiling;
pub mod environment;
pub mod isa;
pub mod openmp;
mod placement;
pub mod pool;
pub(crate) mod prefetch;
pub(crate) mod scratch;
