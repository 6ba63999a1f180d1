//! Execution: instruction sets, threads and their scratch memory.

pub mod isa;
pub mod pool;
pub(crate) mod scratch;
