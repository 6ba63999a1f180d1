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
//!   over [`segment`]s, on gradients as [`prepare`] leaves them; [`work`] does all of a step's work
//!   together.
//! - [`reduce`] drives the norms behind [`clip`], [`pointwise`] and [`rowwise`] the losses in
//!   [`loss`].
//! - [`storage`] keeps numbers in fewer bits than they are computed in.
//! - [`sam`] and [`random`] serve what is built around an optimizer; [`stream`] is the ceiling.
//! - [`float`], [`factor`], [`math`] and [`hyper`] are what all of them are written with.
//!
//! Results are the same bits for any number of threads and any tier.

pub mod clip;
pub mod error;
pub mod factor;
pub mod float;
pub mod hyper;
pub mod isa;
pub mod layers;
pub mod loss;
pub mod math;
pub mod optim;
pub mod pointwise;
pub mod prepare;
mod product;
pub mod random;
pub mod reduce;
pub mod rowwise;
pub mod rule;
pub mod sam;
pub mod segment;
pub mod storage;
pub mod stream;
pub mod sweep;
pub mod threads;
pub mod wholes;
pub mod work;
