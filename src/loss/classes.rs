//! Class indices: what targets may hold, checked before anything is written.

use crate::error::{Error, Result};
use crate::float::Float;
use crate::isa::{self, Kernel};

/// An integer type of class indices.
pub(crate) trait Index: Copy + Send + Sync + std::fmt::Display {
    /// Exact.
    fn wide(self) -> i64;
}

impl Index for i32 {
    #[inline(always)]
    fn wide(self) -> i64 {
        i64::from(self)
    }
}

impl Index for i64 {
    #[inline(always)]
    fn wide(self) -> i64 {
        self
    }
}

struct Check<'a, I> {
    targets: &'a [I],
    classes: i64,
    ignore_index: i64,
}

impl<I: Index> Kernel for Check<'_, I> {
    /// Whether all are in range, and how many are not ignored.
    type Output = (bool, u64);

    #[inline(always)]
    fn run(self) -> Self::Output {
        let (mut bad, mut count) = (0, 0);
        for &target in self.targets {
            let target = target.wide();
            let counts = target != self.ignore_index;
            count += u64::from(counts);
            bad |= u64::from(counts & ((target < 0) | (target >= self.classes)));
        }
        (bad == 0, count)
    }
}

/// Checks every target, and returns the sum of the weights of those that are not ignored.
///
/// # Errors
/// The first row whose target is neither a class nor `ignore_index`.
pub(crate) fn check<T: Float, I: Index>(
    targets: &[I],
    classes: usize,
    ignore_index: i64,
    weight: Option<&[T]>,
) -> Result<f64> {
    let bound = i64::try_from(classes).expect("an array has at most isize::MAX elements");
    let (good, count) = isa::current().run(Check {
        targets,
        classes: bound,
        ignore_index,
    });
    if !good {
        let bad = |target: &I| {
            let target = target.wide();
            target != ignore_index && !(0..bound).contains(&target)
        };
        let row = targets.iter().position(bad).expect("the kernel found one");
        let target = targets[row];
        return Err(Error::Index(format!(
            "target[{row}] is {target}, which is not one of {classes} classes"
        )));
    }
    Ok(match weight {
        Some(weight) => sum_of_weights(targets, ignore_index, weight),
        None => count as f64,
    })
}

fn sum_of_weights<T: Float, I: Index>(targets: &[I], ignore_index: i64, weight: &[T]) -> f64 {
    let mut lanes = [0.0; 8];
    for (i, target) in targets.iter().enumerate() {
        if target.wide() != ignore_index {
            lanes[i % 8] += weight[target.wide() as usize].to_f64();
        }
    }
    crate::pointwise::sum(lanes)
}
