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
//! - [`optim`] lists the optimizers: a [`Method`](optim::Method) plans the work of a step on
//!   [`segment`]s, which are made of [`view`]: arrays, perhaps in fewer bits ([`storage`]).
//!   [`work`] does all of a step's work together.
//! - [`prologue`] is what becomes of gradients before their rule sees them, with factors ([`factor`])
//!   and bounds that come from [`clip`] or [`norm`] and with the penalties of a [`regularizer`];
//!   [`epilogue`] is what follows the update, and [`following`] where there is none.
//! - [`loss`] has the losses; [`pointwise`] and [`vectorwise`] make one of a formula.
//! - [`sam`], [`average`] and [`random`] serve what is built around an optimizer, [`mining`] what
//!   feeds a loss; [`stream`] is the ceiling.
//! - [`isa`] compiles every kernel once per tier, [`threads`] spreads chunks over a pool. Kernels
//!   compute in [`float`] and [`math`], with [`hyper`]parameters that are checked by name.
//!
//! Results are the same bits for any number of threads and any tier.
//!
//! # Example
//!
//! A loss with its gradient, and one step of AdamW on a buffer, by a gradient that is clipped to a
//! norm of 1 as it is read:
//!
//! ```
//! use fastoptim::ops::clip::{self, Array};
//! use fastoptim::loss::{Call, Input, Loss, Reduction, Target, mse::Mse};
//! use fastoptim::optim::{Method, adam::Adam};
//! use fastoptim::sweep::prologue::Prologue;
//! use fastoptim::sweep::segment::{StepContext, Segment};
//! use fastoptim::sweep::task;
//!
//! let target = [0.0_f32, 0.0, 0.0, 5.0];
//! let mut w = [1.0_f32, 2.0, -3.0, 4.0];
//! let mut g = [0.0_f32; 4];
//! let mse = |w: &[f32], g: &mut [f32]| {
//!     let inputs = vec![Input::Gradient(w, g)];
//!     Mse.evaluate(Call::new(inputs, Some(Target::Numbers(&target)), Reduction::Mean))
//! };
//! let before = mse(&w, &mut g)?;
//!
//! let adamw = Method::Adam(Adam {
//!     lr: 0.1,
//!     betas: [0.9, 0.999],
//!     eps: 1e-8,
//!     weight_decay: 0.01,
//!     amsgrad: false,
//!     decoupled_weight_decay: true,
//!     cautious: false,
//! });
//! let shape = [w.len()];
//! let mut state = vec![[0.0_f32; 4]; adamw.state(shape.len()).len()];
//!
//! let norm = clip::total_norm(&[Array::F32(&g)], 2.0);
//! let prologue = Prologue {
//!     coefficient: clip::coefficient(norm, 1.0),
//!     ..Prologue::default()
//! };
//! let context = StepContext { step: 1, fresh: true, ..StepContext::default() };
//! let state = state.iter_mut().map(|array| &mut array[..]);
//! let segment = Segment::native(&mut w, &g, &shape, state, context);
//! task::run(vec![adamw.plan(vec![segment], prologue)]);
//!
//! assert!(mse(&w, &mut g)? < before);
//! assert!((w[0] - (1.0 - 0.1 * 0.01 - 0.1)).abs() < 1e-6);
//! # Ok::<(), fastoptim::error::Error>(())
//! ```
//!
//! # Safety
//!
//! All of it can be used without `unsafe`: memory is borrowed as slices, and what goes together is
//! checked when it is put together. Two functions are for callers that have no slices to borrow,
//! because the memory is another language's: [`StorageView::from_raw`](view::StorageView::from_raw) (and
//! [`read_from_raw`](view::StorageView::read_from_raw)) and [`Segment::follows`](segment::Segment::follows).

pub mod error;
pub mod exec;
pub mod hyper;
pub mod loss;
pub mod numeric;
pub mod ops;
pub mod optim;
mod reduce;
pub mod storage;
pub mod sweep;
