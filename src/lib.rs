//! Fused, multithreaded CPU kernels for training: optimizer steps, losses, norms and clipping.
//!
//! | Word | Meaning |
//! |---|---|
//! | rule | the update of one element |
//! | driver | the loop that applies a rule to whole buffers |
//! | tier | an instruction set |
//! | sweep | one pass over the parameters with everything fused in |
//! | segment | one named array inside a flat buffer |
//!
//! | Module | Contents |
//! |---|---|
//! | [`step`] | one step: options, the norm of the gradients, clipping, update, counts |
//! | [`optim`] | the list of optimizers, and one file per rule |
//! | [`sweep`] | the segments of a step and the drivers that apply a rule to them |
//! | [`loss`] | the list of losses, one file per loss, and their drivers |
//! | [`ops`] | clipping, penalties, averages, SAM, normally distributed numbers |
//! | [`storage`] | views of arrays, and the 16- and 8-bit encodings |
//! | [`hyper`] | arguments that are checked by name |
//! | [`exec`] | instruction sets and the thread pool |
//! | [`numeric`] | the float types, exp and ln, scale factors |
//! | [`error`] | the errors returned to callers |
//!
//! Results are bitwise identical for any number of threads and any tier.
//!
//! # Example
//!
//! A loss with its gradient, and one step of AdamW on a buffer. The gradient is clipped to a norm
//! of 1 as it is read:
//!
//! ```
//! use fastoptim::loss::{Call, Input, Loss, Reduction, Target, mse::Mse};
//! use fastoptim::optim::{Method, adam::Adam};
//! use fastoptim::step::{self, GroupSegments, Local, Options, Progress, Segment};
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
//! let mut progress = Progress::new(&adamw);
//!
//! let context = progress.context(true);
//! let arrays = state.iter_mut().map(|array| &mut array[..]);
//! let segment = Segment::native(&mut w, &g, &shape, arrays, context);
//! let group = GroupSegments { single: vec![segment], ..GroupSegments::new(&adamw) };
//! let options = Options { max_norm: Some(1.0), ..Options::default() };
//! let outcome = step::run(&mut [group], &options, &Local)?;
//! outcome.write_back(&adamw, Some(context), &mut progress);
//!
//! assert!(outcome.norm > Some(1.0) && progress.steps == 1);
//! assert!(mse(&w, &mut g)? < before);
//! assert!((w[0] - (1.0 - 0.1 * 0.01 - 0.1)).abs() < 1e-6);
//! # Ok::<(), fastoptim::error::Error>(())
//! ```
//!
//! # Safety
//!
//! The whole API can be used without `unsafe`: memory is borrowed as slices, and constructors check
//! the lengths of arrays that belong together. The unsafe functions are for callers that have no
//! slices to borrow, because another language owns the memory:
//! [`StorageView::from_raw`](storage::view::StorageView::from_raw) (and
//! [`read_from_raw`](storage::view::StorageView::read_from_raw)) and
//! [`Segment::follows`](sweep::segment::Segment::follows).

pub mod error;
pub mod exec;
pub mod hyper;
pub mod loss;
pub mod numeric;
pub mod ops;
pub mod optim;
mod reduce;
pub mod step;
pub mod storage;
pub mod sweep;
