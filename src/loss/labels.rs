//! The targets of rows of scores and the weights of classes, checked before anything is written.

use crate::error::{Error, Result};
use crate::exec::isa::{self, Kernel};
use crate::loss::checks::{changed, require_len};
use crate::loss::driver::rowwise;
use crate::numeric::float::Float;

/// The targets of rows.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a, T> {
    /// A class or another integer per row.
    Integers(&'a [i64]),
    /// Numbers of the scores' type: a probability per class and row, or one number per row.
    Numbers(&'a [T]),
}

impl<T: Float> Target<'_, T> {
    /// The number of a row, for a target with one number per row.
    #[inline(always)]
    pub(crate) fn number(&self, row: usize) -> f64 {
        match self {
            Self::Integers(target) => target[row] as f64,
            Self::Numbers(target) => target[row].to_f64(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Integers(target) => target.len(),
            Self::Numbers(target) => target.len(),
        }
    }
}

/// `weight * value`, and 0 for the weight 0 and any value.
#[inline(always)]
pub(crate) fn weigh(weight: f64, value: f64) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * value }
}

/// The arguments of a loss of rows of scores other than the scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a, T> {
    /// Rows and classes.
    pub(crate) shape: [usize; 2],
    /// The class of each row, or the probabilities of its classes.
    pub(crate) target: Target<'a, T>,
    /// A factor per class.
    pub(crate) weight: Option<&'a [T]>,
    /// Rows with this target add nothing. Probabilities are not affected.
    pub(crate) ignore_index: Option<i64>,
}

impl<T: Float> Labels<'_, T> {
    /// Checks all labels, and returns the divisor of the mean: the number of rows that are not
    /// ignored or, `by_weight`, the sum of the weights of their targets.
    ///
    /// # Errors
    /// The number of weights or targets is wrong, or a target is neither a class nor ignored: the
    /// first such row is named.
    pub(crate) fn check(&self, by_weight: bool) -> Result<f64> {
        let [rows, classes] = self.shape;
        if let Some(weight) = self.weight
            && weight.len() != classes
        {
            let found = weight.len();
            return Err(Error::Value(format!(
                "weight must have one element per class: {found} for {classes} classes"
            )));
        }
        let expected = match self.target {
            Target::Integers(_) => rows,
            Target::Numbers(_) => rowwise::elements(self.shape)?,
        };
        require_len("target", self.target.len(), expected)?;
        let weight = self.weight.filter(|_| by_weight);
        match self.target {
            Target::Integers(target) => check(target, classes, self.ignore_index, weight),
            Target::Numbers(_) => Ok(rows as f64),
        }
    }

    /// As [`check`](Self::check), for a loss that does not take probabilities.
    ///
    /// # Errors
    /// Also if the targets are probabilities.
    pub(crate) fn check_classes(&self, by_weight: bool) -> Result<f64> {
        if let Target::Numbers(_) = self.target {
            let name = T::NAME;
            return Err(Error::Type(format!(
                "target must be class indices of an integer type, got {name}"
            )));
        }
        self.check(by_weight)
    }

    /// The class of a row, or `None` for an ignored row. [`check`](Self::check) comes first.
    #[inline(always)]
    pub(crate) fn class(&self, row: usize) -> Option<usize> {
        let Target::Integers(targets) = self.target else {
            return None;
        };
        let target = targets[row];
        (Some(target) != self.ignore_index).then_some(target as usize)
    }

    /// The weight of a class.
    #[inline(always)]
    pub(crate) fn weight_of(&self, class: usize) -> f64 {
        self.weight.map_or(1.0, |weight| weight[class].to_f64())
    }
}

struct Check<'a> {
    targets: &'a [i64],
    classes: i64,
    /// Whether rows with the target `ignore_index` are ignored.
    ignores: bool,
    ignore_index: i64,
}

impl Kernel for Check<'_> {
    /// Whether all targets are in range, and the number of those that are not ignored.
    type Output = (bool, u64);

    #[inline(always)]
    fn run(self) -> Self::Output {
        let (mut bad, mut count) = (0, 0);
        for &target in self.targets {
            let counts = !(self.ignores & (target == self.ignore_index));
            count += u64::from(counts);
            bad |= u64::from(counts & ((target < 0) | (target >= self.classes)));
        }
        (bad == 0, count)
    }
}

/// Checks every target, and returns the sum of the weights of those that are not ignored.
///
/// # Errors
/// Names the first row whose target is neither a class nor `ignore_index`.
fn check<T: Float>(
    targets: &[i64],
    classes: usize,
    ignore_index: Option<i64>,
    weight: Option<&[T]>,
) -> Result<f64> {
    let bound = i64::try_from(classes).unwrap_or(i64::MAX);
    let (good, count) = isa::current().run(Check {
        targets,
        classes: bound,
        ignores: ignore_index.is_some(),
        ignore_index: ignore_index.unwrap_or_default(),
    });
    if !good {
        let bad = |target: i64| Some(target) != ignore_index && !(0..bound).contains(&target);
        let mut found = targets
            .iter()
            .enumerate()
            .filter(|(_, target)| bad(**target));
        let (row, target) = found.next().ok_or_else(|| changed("target"))?;
        return Err(Error::Index(format!(
            "target[{row}] is {target}, which is not one of {classes} classes"
        )));
    }
    Ok(match weight {
        Some(weight) => sum_of_weights(targets, ignore_index, weight),
        None => count as f64,
    })
}

fn sum_of_weights<T: Float>(targets: &[i64], ignore_index: Option<i64>, weight: &[T]) -> f64 {
    let mut lanes = [0.0; 8];
    for (i, &target) in targets.iter().enumerate() {
        if Some(target) != ignore_index {
            lanes[i % 8] += weight[target as usize].to_f64();
        }
    }
    crate::reduce::sum(lanes)
}
