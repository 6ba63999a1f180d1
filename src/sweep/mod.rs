//! The pass over the parameters with everything fused in.

pub(crate) mod elementwise;
pub mod epilogue;
pub mod frozen;
pub mod norm;
pub mod prologue;
pub(crate) mod rule;
pub mod segment;
pub(crate) mod state;
pub mod stream;
pub mod task;
pub(crate) mod tensorwise;
pub(crate) mod tile;
pub(crate) mod two_pass;
