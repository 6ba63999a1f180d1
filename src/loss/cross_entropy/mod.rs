//! Cross-entropy of softmax: `sum_j q_j (ln(sum_k exp(x_k)) - x_j)` per row, with gradient
//! `Q p_j - q_j` where `p` is the softmax of the row and `Q = sum_j q_j`.
//!
//! One class of each row, its *pivot*, is treated separately: the target, or the largest logit
//! where targets are probabilities. With `p` near 1 the difference `Q p - q` would cancel, and so
//! would the logarithm of a sum near 1; the sum over the other classes gives both with full
//! relative accuracy.

mod distribution;
mod narrow;
mod wide;

use distribution::{Class, Distribution, Probabilities};

use crate::error::Result;
use crate::hyper::{Kind, Range, hyper};
use crate::loss::call::{Call, Loss, Scores};
use crate::loss::driver::buffers::{Buffers, Input, Reduction};
use crate::loss::driver::rowwise;
use crate::loss::labels::{Labels, Target};
use crate::loss::signature::{Role, Signature};
use crate::numeric::math::Math;

hyper! {
    /// Cross-entropy with PyTorch's options.
    #[derive(Copy)]
    pub struct CrossEntropy {
        /// The part of the target that is spread evenly over all classes.
        label_smoothing: f64, Kind::Number(Range::Unit);
    }
}

/// The factors of a loss that is cross-entropy times a function of the target's probability.
pub(super) trait Focus: Copy + Send + Sync {
    /// Whether all factors are 1.
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

/// The rows of a call, which all kernels process.
#[derive(Clone, Copy)]
struct SoftmaxRows<'a, T, D, F> {
    buffers: Buffers<'a, T>,
    distribution: D,
    focus: F,
    rows: usize,
    classes: usize,
    scale: f64,
}

/// The most classes for which rows are processed in groups. With more, a block has less than one
/// group. Rows of 64 classes alone take 1.3 (AVX2) to 2 times (AVX-512) as long as in groups (8192
/// rows, one thread of Sapphire Rapids).
const NARROW: usize = 128;

impl Loss for CrossEntropy {
    const SIGNATURE: Signature = Signature {
        arrays: &[
            ("input", Role::Input),
            ("target", Role::ClassOrProbabilityTarget),
        ],
        ..Signature::CLASSES
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let smoothing = self.label_smoothing;
        let Scores {
            labels,
            input,
            mut reduction,
            loss_scale,
        } = call.scores()?;
        let [count, scale] = reduction.scales(labels.check(true)?, loss_scale);
        let rows = SoftmaxRows::new(labels, input, &mut reduction, scale, Plain)?;
        if rows.rows == 0 {
            // An array without rows may have more classes than fit in memory.
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
            Target::Integers(_) if smoothing == 0.0 => rows.sum_of_classes(labels),
            Target::Integers(targets) => rows.sum(Class::<_, true> {
                keep,
                uniform: &each(spread),
                ..Class::new(labels, targets)
            }),
        };
        Ok(sum / count)
    }
}

/// Cross-entropy with the factors of `focus`. The mean is over the rows that are not ignored, and
/// does not depend on their weights.
///
/// # Errors
/// A length is wrong, or a target is not a class.
pub(super) fn focused<T: Math, F: Focus>(focus: F, call: Call<'_, T>) -> Result<f64> {
    let Scores {
        labels,
        input,
        mut reduction,
        loss_scale,
    } = call.scores()?;
    let [count, scale] = reduction.scales(labels.check_classes(false)?, loss_scale);
    let rows = SoftmaxRows::new(labels, input, &mut reduction, scale, focus)?;
    Ok(rows.sum_of_classes(labels) / count)
}

impl<'a, T: Math, F: Focus> SoftmaxRows<'a, T, (), F> {
    fn new(
        labels: Labels<'_, T>,
        input: Input<'a, T>,
        reduction: &'a mut Reduction<'_, T>,
        scale: f64,
        focus: F,
    ) -> Result<Self> {
        let [rows, classes] = labels.shape;
        let len = rowwise::elements(labels.shape)?;
        // SAFETY: each task of `rowwise` has its own rows, and each row its own elements and value,
        // so that no two tasks touch the same element.
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
        let loss = SoftmaxRows {
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

    /// The sum of the values for target classes without smoothing.
    fn sum_of_classes(self, labels: Labels<'_, T>) -> f64 {
        match labels.target {
            Target::Integers(targets) => self.sum(Class::<_, false>::new(labels, targets)),
            Target::Numbers(_) => unreachable!("the callers checked that targets are classes"),
        }
    }
}

#[cfg(test)]
mod tests;
