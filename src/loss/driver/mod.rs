//! The loops of the losses: over elements, rows of scores, and vectors.

pub(crate) mod buffers;
pub mod pointwise;
pub(crate) mod rowwise;
pub mod vectorwise;
