//! The engine behind every optimizer class.

pub(crate) mod arithmetic;
pub(crate) mod engine;
mod exchange;
mod gradients;
mod group;
mod groups;
pub(crate) mod hold;
pub(crate) mod load;
mod outputs;
mod parameter;
mod parameter_set;
mod regularizer;
mod segments;
mod state;
mod step;
pub(crate) mod tensors;
