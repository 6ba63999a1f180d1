//! The target distribution of a row: `q_j` for each class `j`.

use crate::loss::driver::buffers;
use crate::loss::labels::Labels;
use crate::numeric::float::Float;

/// The class of a row that is treated separately.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pivot {
    Class(usize),
    Largest,
    /// There is no pivot: the row adds nothing.
    Ignored,
}

pub(super) trait Distribution<T>: Copy + Send + Sync {
    /// Whether classes other than the pivot have a `q` that is not 0.
    const DENSE: bool;
    /// Whether pivots are the largest logits.
    const LARGEST: bool;
    fn pivot(&self, row: usize) -> Pivot;
    /// `q` of a class.
    fn at(&self, row: usize, class: usize) -> T;
    /// `q` of several classes.
    fn piece<const N: usize>(&self, row: usize, start: usize, n: usize) -> [T; N];
    /// The part of `q` of the pivot that `at` does not include.
    fn extra(&self, row: usize) -> f64;
}

/// A class per row, smoothed or not.
#[derive(Clone, Copy)]
pub(super) struct Class<'a, T, const SMOOTH: bool> {
    pub(super) targets: &'a [i64],
    pub(super) ignore_index: Option<i64>,
    pub(super) weight: Option<&'a [T]>,
    /// 1 minus the smoothing.
    pub(super) keep: f64,
    /// The part of the smoothing in each class; empty without smoothing.
    pub(super) uniform: &'a [T],
}

impl<'a, T, const SMOOTH: bool> Class<'a, T, SMOOTH> {
    /// Without smoothing.
    pub(super) fn new(labels: Labels<'a, T>, targets: &'a [i64]) -> Self {
        Self {
            targets,
            ignore_index: labels.ignore_index,
            weight: labels.weight,
            keep: 1.0,
            uniform: &[],
        }
    }
}

impl<T: Float, const SMOOTH: bool> Distribution<T> for Class<'_, T, SMOOTH> {
    const DENSE: bool = SMOOTH;
    const LARGEST: bool = false;

    #[inline(always)]
    fn pivot(&self, row: usize) -> Pivot {
        let target = self.targets[row];
        // The target is in range or ignored: `Labels::check` saw the same borrowed slice.
        if Some(target) == self.ignore_index {
            Pivot::Ignored
        } else {
            Pivot::Class(target as usize)
        }
    }

    #[inline(always)]
    fn at(&self, _row: usize, class: usize) -> T {
        if SMOOTH { self.uniform[class] } else { T::ZERO }
    }

    #[inline(always)]
    fn piece<const N: usize>(&self, _row: usize, start: usize, n: usize) -> [T; N] {
        if SMOOTH {
            buffers::piece(self.uniform, start, n)
        } else {
            [T::ZERO; N]
        }
    }

    #[inline(always)]
    fn extra(&self, row: usize) -> f64 {
        match self.weight {
            Some(weight) => self.keep * weight[self.targets[row] as usize].to_f64(),
            None => self.keep,
        }
    }
}

/// A probability per class: `q_j = factor_j given_j + uniform_j`.
#[derive(Clone, Copy)]
pub(super) struct Probabilities<'a, T> {
    pub(super) given: &'a [T],
    pub(super) factor: &'a [T],
    pub(super) uniform: &'a [T],
    pub(super) classes: usize,
}

impl<T: Float> Distribution<T> for Probabilities<'_, T> {
    const DENSE: bool = true;
    const LARGEST: bool = true;

    #[inline(always)]
    fn pivot(&self, _row: usize) -> Pivot {
        Pivot::Largest
    }

    #[inline(always)]
    fn at(&self, row: usize, class: usize) -> T {
        self.factor[class] * self.given[row * self.classes + class] + self.uniform[class]
    }

    #[inline(always)]
    fn piece<const N: usize>(&self, row: usize, start: usize, n: usize) -> [T; N] {
        let given: [T; N] = buffers::piece(self.given, row * self.classes + start, n);
        let factor: [T; N] = buffers::piece(self.factor, start, n);
        let mut q: [T; N] = buffers::piece(self.uniform, start, n);
        for i in 0..N {
            q[i] = factor[i] * given[i] + q[i];
        }
        q
    }

    #[inline(always)]
    fn extra(&self, _row: usize) -> f64 {
        0.0
    }
}
