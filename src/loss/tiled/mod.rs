//! Calls whose arrays are not as the kernels read them: 16-bit numbers, classes on the second of
//! several axes, and numbers that are repeated along an axis.
//!
//! Some blocks of rows at a time are loaded to memory of the thread, in the type and the order of
//! the kernels; the loss is evaluated there, and its results are stored. The blocks are those of
//! the drivers, so that the value has the same bits as that of arrays that were converted
//! beforehand.

mod array;
mod checks;
mod evaluate;
mod sums;

use super::signature::MAX_WEIGHTS;
use crate::storage::view::StorageView;
pub use array::{Layout, TiledArray};
pub(super) use evaluate::{Kernel, evaluate};

/// An input of a loss and the memory of its gradient.
#[derive(Debug)]
pub enum TiledInput<'a, T> {
    /// The input. No gradient is computed.
    Value(TiledArray<'a, T>),
    /// The input, and the memory of the gradient, in the layout of the input.
    Gradient(TiledArray<'a, T>, StorageView<'a, T>),
    /// The gradient replaces the input.
    InPlace(TiledArray<'a, T>),
}

impl<'a, T> TiledInput<'a, T> {
    fn array(&self) -> &TiledArray<'a, T> {
        match self {
            Self::Value(array) | Self::Gradient(array, _) | Self::InPlace(array) => array,
        }
    }

    fn gradient(&self) -> Option<&StorageView<'a, T>> {
        match self {
            Self::Value(_) => None,
            Self::Gradient(_, gradient) => Some(gradient),
            Self::InPlace(array) => Some(&array.view),
        }
    }
}

/// The target of a call.
#[derive(Debug)]
pub enum TiledTarget<'a, T> {
    /// An integer per row.
    Integers(&'a [i64]),
    /// Numbers, one per row or per element.
    Numbers(TiledArray<'a, T>),
}

/// [`Reduction`](super::Reduction) with values in any encoding.
#[derive(Debug)]
pub enum TiledReduction<'a, T> {
    /// [`Reduction::Mean`](super::Reduction::Mean).
    Mean,
    /// [`Reduction::Sum`](super::Reduction::Sum).
    Sum,
    /// [`Reduction::BatchMean`](super::Reduction::BatchMean).
    BatchMean(usize),
    /// [`Reduction::None`](super::Reduction::None).
    None(StorageView<'a, T>),
}

/// [`Call`](super::Call) with arrays that are not as the kernels read them.
#[derive(Debug)]
pub struct TiledCall<'a, T> {
    /// The inputs, in the order of [`Signature::arrays`](super::signature::Signature::arrays).
    pub inputs: Vec<TiledInput<'a, T>>,
    /// The target, for a loss that has one.
    pub target: Option<TiledTarget<'a, T>>,
    /// The weights that are given, in the order of
    /// [`Signature::weights`](super::signature::Signature::weights): one per class, or one per
    /// element.
    pub weights: [Option<TiledArray<'a, T>>; MAX_WEIGHTS],
    /// The number of rows and their length, which is 1 for an elementwise loss.
    pub shape: [usize; 2],
    /// Rows with this target add nothing.
    pub ignore_index: Option<i64>,
    /// How the values become one.
    pub reduction: TiledReduction<'a, T>,
    /// A factor of the gradients, finite and > 0.
    pub loss_scale: f64,
}

#[cfg(test)]
mod tests;
