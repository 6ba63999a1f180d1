//! Fused, multithreaded CPU kernels for training: optimizer steps, losses, norms and clipping.
//!
//! | Word | Meaning |
//! |---|---|
//! | rule | what an optimizer does to one element |
//! | driver | the loop that applies a rule to whole buffers |
//! | tier | one instruction set |
//! | sweep | one pass over the parameters with everything fused in |
//! | segment | one named array inside a flat buffer |
//!
//! - [`isa`] compiles every kernel once per tier, [`threads`] spreads chunks over a pool.
//! - [`sweep`], [`layers`] and [`wholes`] drive the three shapes of [`rule`], which [`optim`] lists,
//!   over [`segment`]s of [`cells`], on gradients as [`prepare`] leaves them, and [`finish`] what
//!   follows the update ([`following`] where there is none); [`work`] does all of a step's work together. [`storage`] is how cells are
//!   kept in fewer bits.
//! - [`reduce`] drives the norms behind [`clip`], of gradients before a step ([`norm`]) and the sums
//!   of a [`regularizer`]; [`pointwise`], [`rowwise`] and [`vectorwise`] drive the losses in
//!   [`loss`].
//! - [`sam`], [`average`] and [`random`] serve what is built around an optimizer, [`mining`] what
//!   feeds a loss; [`stream`] is the ceiling.
//! - [`float`], [`factor`], [`math`] and [`hyper`] are what all of them are written with.
//!
//! Results are the same bits for any number of threads and any tier.

pub mod average;
pub mod cells;
pub mod clip;
pub mod error;
pub mod factor;
pub mod finish;
pub mod float;
pub mod following;
pub mod hyper;
pub mod isa;
pub mod layers;
pub mod loss;
pub mod math;
pub mod mining;
pub mod norm;
pub mod optim;
pub mod pointwise;
pub mod prepare;
mod product;
pub mod random;
pub mod reduce;
pub mod regularizer;
pub mod rowwise;
pub mod rule;
pub mod sam;
mod scratch;
pub mod segment;
mod stage;
pub mod storage;
pub mod stream;
pub mod sweep;
pub mod threads;
pub mod vectorwise;
pub mod wholes;
pub mod work;
