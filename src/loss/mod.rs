//! The losses: one file each, and the drivers and checks that they share.
//!
//! [`registry`] has the list of losses. A loss declares its arguments, implements [`Loss`], and
//! computes by a driver: a formula of one element by [`driver::pointwise`], of rows of scores by
//! `driver::rowwise`, of vectors by [`driver::vectorwise`]. The drivers know only these
//! traits, not the losses. [`tiled`] brings arrays of other types and orders to the drivers.

pub mod absolute;
pub mod binary;
pub mod call;
mod checks;
pub mod contrastive;
pub mod cosine_embedding;
pub mod cross_entropy;
mod distance;
pub mod driver;
pub mod focal;
pub mod gaussian;
mod labels;
pub mod likelihood;
pub mod log_cosh;
mod logistic;
pub mod margin;
pub mod mse;
pub mod multi_margin;
pub mod nll;
pub mod registry;
pub mod sigmoid_focal;
pub mod signature;
pub mod tiled;
pub mod triplet_margin;
pub mod triplets;
mod weights;

pub use call::{Call, Loss};
pub use driver::buffers::{Input, Reduction};
pub use labels::Target;
pub use registry::{AnyLoss, Kind};

#[cfg(test)]
mod tests;
