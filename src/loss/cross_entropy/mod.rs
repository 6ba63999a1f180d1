//! Cross-entropy of softmax: `sum_j q_j (ln(sum_k exp(x_k)) - x_j)` per row, with gradient
//! `Q p_j - q_j` where `p` is the softmax of the row and `Q = sum_j q_j`.
//!
//! One class of each row, its *pivot*, stands apart: the target, or the largest logit where targets
//! are probabilities. With `p` near 1 the difference `Q p - q` would cancel, and so would the
//! logarithm of a sum near 1; the sum over the other classes gives both with full relative accuracy.

mod distribution;
mod narrow;
mod wide;

use distribution::{Class, Distribution, Probabilities};

use super::labels::Index;
use super::{Buffers, Input, Labels, Reduction, Target};
use crate::error::{Error, Result};
use crate::loss::driver::rowwise;
use crate::numeric::math::Math;

/// Cross-entropy with PyTorch's options.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// The part of the target that is spread evenly over all classes, in `0..=1`.
    pub label_smoothing: f64,
}

/// What a loss that stands on cross-entropy makes of a row.
pub(super) trait Focus: Copy + Send + Sync {
    /// Whether it leaves rows alone.
    const PLAIN: bool;
    /// The factors of the value and of the gradient of cross-entropy, from the target's probability
    /// `[p, 1 - p]` and `-ln(p)`.
    fn factors(self, chances: [f64; 2], minus_ln_p: f64) -> [f64; 2];
}

/// Cross-entropy itself.
#[derive(Clone, Copy)]
struct Plain;

impl Focus for Plain {
    const PLAIN: bool = true;

    #[inline(always)]
    fn factors(self, _chances: [f64; 2], _minus_ln_p: f64) -> [f64; 2] {
        [1.0, 1.0]
    }
}

/// What every kernel needs.
#[derive(Clone, Copy)]
struct Rows<'a, T, D, F> {
    buffers: Buffers<'a, T>,
    distribution: D,
    focus: F,
    rows: usize,
    classes: usize,
    scale: f64,
}

/// Up to this many classes several rows are worked on at once: one such row does not fill the lanes
/// of [`wide`].
const NARROW: usize = wide::LANES - 1;

impl CrossEntropy {
    /// The value under `reduction`, and the gradient times `loss_scale`.
    ///
    /// # Errors
    /// An option out of range, a wrong length, or a target that is no class.
    pub fn compute<T: Math>(
        self,
        labels: Labels<'_, T>,
        input: Input<'_, T>,
        mut reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        let smoothing = self.label_smoothing;
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(Error::Value(format!(
                "label_smoothing must be in [0, 1], got {smoothing}"
            )));
        }
        let [count, scale] = reduction.scales(labels.check(true)?, loss_scale);
        let rows = Rows::new(labels, input, &mut reduction, scale, Plain)?;
        if rows.rows == 0 {
            // There may be more classes than memory holds numbers for, as no row has them.
            return Ok(0.0 / count);
        }
        let classes = rows.classes;
        let each = |factor: f64| -> Vec<T> {
            (0..classes)
                .map(|j| T::from_f64(factor * labels.weight_of(j)))
                .collect()
        };
        let (keep, spread) = (1.0 - smoothing, smoothing / classes as f64);
        let sum = match labels.target {
            Target::Numbers(given) => {
                let (factor, uniform) = (each(keep), each(spread));
                rows.sum(Probabilities {
                    given,
                    factor: &factor,
                    uniform: &uniform,
                    classes,
                })
            }
            _ if smoothing == 0.0 => rows.sum_of_classes(labels),
            Target::I32(targets) => rows.sum_smoothed(labels, targets, keep, &each(spread)),
            Target::I64(targets) => rows.sum_smoothed(labels, targets, keep, &each(spread)),
        };
        Ok(sum / count)
    }
}

/// Cross-entropy under a focus. The mean is over the rows that are not ignored, whatever their
/// weights.
///
/// # Errors
/// As [`CrossEntropy::compute`], and where targets are probabilities.
pub(super) fn focused<T: Math, F: Focus>(
    focus: F,
    labels: Labels<'_, T>,
    input: Input<'_, T>,
    mut reduction: Reduction<'_, T>,
    loss_scale: f64,
) -> Result<f64> {
    let [count, scale] = reduction.scales(labels.check_classes(false)?, loss_scale);
    let rows = Rows::new(labels, input, &mut reduction, scale, focus)?;
    Ok(rows.sum_of_classes(labels) / count)
}

impl<'a, T: Math, F: Focus> Rows<'a, T, (), F> {
    fn new(
        labels: Labels<'_, T>,
        input: Input<'a, T>,
        reduction: &'a mut Reduction<'_, T>,
        scale: f64,
        focus: F,
    ) -> Result<Self> {
        let [rows, classes] = labels.shape;
        let len = rowwise::elements(labels.shape)?;
        // SAFETY: each task of `rowwise` has rows of its own, and a row elements and a value of its own.
        let buffers = unsafe { Buffers::new(input, len, reduction, rows) }?;
        Ok(Self {
            buffers,
            distribution: (),
            focus,
            rows,
            classes,
            scale,
        })
    }

    fn sum<D: Distribution<T>>(self, distribution: D) -> f64 {
        let Self { rows, classes, .. } = self;
        let loss = Rows {
            buffers: self.buffers,
            distribution,
            focus: self.focus,
            rows,
            classes,
            scale: self.scale,
        };
        if classes <= NARROW {
            rowwise::sum(narrow::Narrow(loss), rows, classes)
        } else {
            rowwise::sum(wide::Wide(loss), rows, classes)
        }
    }

    /// Without smoothing.
    fn sum_of_classes(self, labels: Labels<'_, T>) -> f64 {
        match labels.target {
            Target::I32(targets) => self.sum(Class::<_, _, false>::new(labels, targets)),
            Target::I64(targets) => self.sum(Class::<_, _, false>::new(labels, targets)),
            Target::Numbers(_) => unreachable!("the caller has classes"),
        }
    }

    fn sum_smoothed<I: Index>(
        self,
        labels: Labels<'_, T>,
        targets: &[I],
        keep: f64,
        uniform: &[T],
    ) -> f64 {
        self.sum(Class::<_, _, true> {
            keep,
            uniform,
            ..Class::new(labels, targets)
        })
    }
}

#[cfg(test)]
mod tests;
