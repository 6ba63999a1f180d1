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

use super::classes::{self, Index};
use super::{Buffers, Input, Reduction, check_loss_scale};
use crate::error::{Error, Result};
use crate::math::Math;
use crate::rowwise;

/// What the rows should predict.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a, T> {
    /// A class per row.
    I32(&'a [i32]),
    /// A class per row.
    I64(&'a [i64]),
    /// A probability per class and row.
    Probabilities(&'a [T]),
}

/// Cross-entropy with PyTorch's options.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a, T> {
    /// A factor per class.
    pub weight: Option<&'a [T]>,
    /// Rows with this target add nothing. It has no meaning with probabilities.
    pub ignore_index: i64,
    /// The part of the target that is spread evenly over all classes, in `0..=1`.
    pub label_smoothing: f64,
}

/// What every kernel needs.
#[derive(Clone, Copy)]
struct Rows<'a, T, D> {
    buffers: Buffers<'a, T>,
    distribution: D,
    classes: usize,
    scale: f64,
}

/// Up to this many classes several rows are worked on at once: one such row does not fill the lanes
/// of [`wide`].
const NARROW: usize = wide::LANES - 1;

impl<T: Math> CrossEntropy<'_, T> {
    /// The value under `reduction`, and the gradient times `loss_scale`.
    ///
    /// # Errors
    /// An option out of range, a wrong length, or a target that is no class.
    pub fn compute(
        &self,
        input: Input<'_, T>,
        [rows, classes]: [usize; 2],
        target: Target<'_, T>,
        mut reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        check_loss_scale(loss_scale)?;
        let smoothing = self.label_smoothing;
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(Error::Value(format!(
                "label_smoothing must be in [0, 1], got {smoothing}"
            )));
        }
        if let Some(weight) = self.weight
            && weight.len() != classes
        {
            let found = weight.len();
            return Err(Error::Value(format!(
                "weight must have one element per class: {found} for {classes} classes"
            )));
        }
        let (found, expected) = match target {
            Target::I32(target) => (target.len(), rows),
            Target::I64(target) => (target.len(), rows),
            Target::Probabilities(target) => (target.len(), rows * classes),
        };
        assert_eq!(found, expected, "the target fits the rows");
        let total = match target {
            Target::I32(target) => classes::check(target, classes, self.ignore_index, self.weight)?,
            Target::I64(target) => classes::check(target, classes, self.ignore_index, self.weight)?,
            Target::Probabilities(_) => rows as f64,
        };
        let count = if matches!(reduction, Reduction::Mean) {
            total
        } else {
            1.0
        };
        // Nothing counts: the mean is 0 / 0, and the gradient 0.
        let scale = if count == 0.0 {
            0.0
        } else {
            loss_scale / count
        };
        // SAFETY: blocks of rows do not overlap.
        let buffers = unsafe { Buffers::new(input, &mut reduction, rows) };
        assert_eq!(buffers.len(), rows * classes, "the logits fit the rows");
        let shape = Shape {
            buffers,
            rows,
            classes,
            scale,
        };
        Ok(self.sum(shape, target) / count)
    }

    /// Picks the distribution.
    fn sum(&self, shape: Shape<'_, T>, target: Target<'_, T>) -> f64 {
        let keep = 1.0 - self.label_smoothing;
        let classes = shape.classes;
        let spread = self.label_smoothing / classes as f64;
        let weight = |j: usize| self.weight.map_or(1.0, |weight| weight[j].to_f64());
        let each = |factor: f64| -> Vec<T> {
            (0..classes)
                .map(|j| T::from_f64(factor * weight(j)))
                .collect()
        };
        match target {
            Target::I32(targets) => self.sum_of_classes(shape, targets, spread, &each),
            Target::I64(targets) => self.sum_of_classes(shape, targets, spread, &each),
            Target::Probabilities(given) => {
                let (factor, uniform) = (each(keep), each(spread));
                shape.sum(Probabilities {
                    given,
                    factor: &factor,
                    uniform: &uniform,
                    classes,
                })
            }
        }
    }

    fn sum_of_classes<I: Index>(
        &self,
        shape: Shape<'_, T>,
        targets: &[I],
        spread: f64,
        each: &impl Fn(f64) -> Vec<T>,
    ) -> f64 {
        let (ignore_index, weight, keep) =
            (self.ignore_index, self.weight, 1.0 - self.label_smoothing);
        if self.label_smoothing == 0.0 {
            let uniform = &[];
            return shape.sum(Class::<_, _, false> {
                targets,
                ignore_index,
                weight,
                keep,
                uniform,
            });
        }
        let uniform = &each(spread);
        shape.sum(Class::<_, _, true> {
            targets,
            ignore_index,
            weight,
            keep,
            uniform,
        })
    }
}

struct Shape<'a, T> {
    buffers: Buffers<'a, T>,
    rows: usize,
    classes: usize,
    scale: f64,
}

impl<T: Math> Shape<'_, T> {
    fn sum<D: Distribution<T>>(self, distribution: D) -> f64 {
        let Self {
            buffers,
            rows,
            classes,
            scale,
        } = self;
        let loss = Rows {
            buffers,
            distribution,
            classes,
            scale,
        };
        if classes <= NARROW {
            rowwise::sum(narrow::Narrow(loss), rows, classes)
        } else {
            rowwise::sum(wide::Wide(loss), rows, classes)
        }
    }
}

#[cfg(test)]
mod tests;
