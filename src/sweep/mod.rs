//! The pass over the parameters: segments, drivers, and the operations fused with an update.

pub(crate) mod all_reduce;
pub(crate) mod arithmetic;
pub(crate) mod elementwise;
pub mod epilogue;
pub mod frozen;
pub(crate) mod norm;
pub(crate) mod prologue;
pub(crate) mod registers;
pub(crate) mod rule;
pub mod segment;
pub(crate) mod state;
pub(crate) mod subnormal;
pub(crate) mod task;
pub(crate) mod tensorwise;
pub(crate) mod tile;
pub(crate) mod two_pass;

#[cfg(test)]
mod tests;
