//! Operations on sequences of arrays.

pub(crate) mod arrays;
pub(crate) mod checksum;
pub(crate) mod clip;
pub(crate) mod penalty;
