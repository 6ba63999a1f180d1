//! Memory that a call works on: whose it is, what it holds, and who else is in it.

pub(crate) mod inflight;
pub(crate) mod items;
pub(crate) mod numpy;
pub(crate) mod pairs;
pub(crate) mod slab;
pub(crate) mod view;
