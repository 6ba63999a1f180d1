//! Values whose type of computation is known only at run time.

use crate::storage::view::StorageView;

/// A value for computation in `f32` or in `f64`.
#[derive(Clone, Copy, Debug)]
pub enum Precision<S, D> {
    /// Computed in `f32`.
    Single(S),
    /// Computed in `f64`.
    Double(D),
}

/// An array for computation in `f32` or in `f64`.
pub type AnyView<'a> = Precision<StorageView<'a, f32>, StorageView<'a, f64>>;

/// Two arrays for computation in the same type.
pub type Pair<'a, T> = (StorageView<'a, T>, StorageView<'a, T>);

/// A pair of arrays for computation in `f32` or in `f64`.
pub type AnyPair<'a> = Precision<Pair<'a, f32>, Pair<'a, f64>>;

impl<S, D> Precision<S, D> {
    /// Returns whether the computation is in `f32`.
    pub fn is_single(&self) -> bool {
        matches!(self, Self::Single(_))
    }
}

impl<'a> From<StorageView<'a, f32>> for AnyView<'a> {
    fn from(view: StorageView<'a, f32>) -> Self {
        Self::Single(view)
    }
}

impl<'a> From<StorageView<'a, f64>> for AnyView<'a> {
    fn from(view: StorageView<'a, f64>) -> Self {
        Self::Double(view)
    }
}

impl<'a> From<Pair<'a, f32>> for AnyPair<'a> {
    fn from(pair: Pair<'a, f32>) -> Self {
        Self::Single(pair)
    }
}

impl<'a> From<Pair<'a, f64>> for AnyPair<'a> {
    fn from(pair: Pair<'a, f64>) -> Self {
        Self::Double(pair)
    }
}
