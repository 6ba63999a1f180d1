//! The memory that a call uses: arrays and their checks, allocation, and exclusion of other calls.

pub(crate) mod dlpack;
pub(crate) mod foreign;
pub(crate) mod inflight;
pub(crate) mod items;
pub(crate) mod numpy;
pub(crate) mod pages;
pub(crate) mod pairs;
pub(crate) mod slab;
pub(crate) mod strided;
pub(crate) mod tensor;
pub(crate) mod view;
