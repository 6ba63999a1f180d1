//! Multi-class margin: `w_t sum_j max(0, margin - x_t + x_j)^p` per row over the classes `j` other
//! than its target `t`, over the number of classes or not.
//!
//! As in cross-entropy, few classes go in groups of rows, where lane `r` is row `r`, and of many
//! classes each fills the lanes by itself. Gaps are in `f64`, where a kink is met exactly.

use std::ops::Range;

use super::{Buffers, Input, Labels, Reduction};
use crate::error::{Error, Result};
use crate::exec::scratch::Scratch;
use crate::loss::driver::rowwise::{self, GROUP};
use crate::numeric::float::Float;
use crate::reduce;

/// The hinge of every class against the target's.
#[derive(Clone, Copy, Debug)]
pub struct MultiMargin {
    /// Whether hinges are squared: p = 2.
    pub squared: bool,
    /// How far ahead the target must be.
    pub margin: f64,
    /// Whether the sum is divided by the number of classes.
    pub average: bool,
}

/// 32 `f64` lanes fill four AVX-512 or eight AVX2 registers.
const LANES: usize = 32;

/// Up to this many classes a row does not fill the lanes well enough.
const NARROW: usize = 2 * LANES - 1;

#[derive(Clone, Copy)]
struct Rows<'a, T, const SQUARED: bool> {
    buffers: Buffers<'a, T>,
    labels: Labels<'a, T>,
    margin: f64,
    /// 1, or 1 over the number of classes.
    share: f64,
    /// Of the gradient.
    scale: f64,
}

impl<T: Float, const SQUARED: bool> Rows<'_, T, SQUARED> {
    /// The target of a row, what is added to scores to get gaps, and the factor of its value.
    #[inline(always)]
    fn target(&self, row: usize) -> (usize, f64, f64) {
        // Every row has one: `sum` refuses `ignore_index`, and all targets were checked.
        let class = self.labels.class(row).unwrap_or_default();
        let x = self
            .buffers
            .read_one(row * self.labels.shape[1] + class)
            .to_f64();
        (
            class,
            self.margin - x,
            self.share * self.labels.weight_of(class),
        )
    }

    /// The value of a gap and its derivative.
    #[inline(always)]
    fn hinge(gap: f64, is_target: bool) -> (f64, f64) {
        let gap = gap.max_or_nan(0.0);
        let gap = if is_target { 0.0 } else { gap };
        if SQUARED {
            (gap * gap, gap + gap)
        } else {
            (gap, gap.sign())
        }
    }
}

#[derive(Clone, Copy)]
struct Narrow<'a, T, const SQUARED: bool>(Rows<'a, T, SQUARED>);

impl<T: Float, const SQUARED: bool> Narrow<'_, T, SQUARED> {
    /// The values of up to `GROUP` rows; 0 for lanes beyond `n`.
    #[inline(always)]
    fn group(&self, first: usize, n: usize, tile: &mut [[T; GROUP]]) -> [f64; GROUP] {
        let rows = &self.0;
        rows.buffers.read_turned(first, n, tile);
        let mut target = [0; GROUP];
        let (mut shift, mut weight, mut factor) = ([0.0; GROUP], [0.0; GROUP], [0.0; GROUP]);
        for r in 0..n {
            let (class, to_gap, share) = rows.target(first + r);
            target[r] = class as u32;
            shift[r] = to_gap;
            weight[r] = share;
            factor[r] = share * rows.scale;
        }
        let (mut sums, mut slopes) = ([0.0; GROUP], [0.0; GROUP]);
        for (j, x) in tile.iter_mut().enumerate() {
            for r in 0..GROUP {
                let is_target = target[r] == j as u32;
                let (value, slope) = Rows::<T, SQUARED>::hinge(shift[r] + x[r].to_f64(), is_target);
                sums[r] += value;
                slopes[r] += slope;
                x[r] = T::from_f64(factor[r] * slope);
            }
        }
        for r in 0..n {
            tile[target[r] as usize][r] = T::from_f64(-factor[r] * slopes[r]);
        }
        rows.buffers.write_turned(first, n, tile);
        for r in 0..GROUP {
            sums[r] = if r < n { weight[r] * sums[r] } else { 0.0 };
        }
        sums
    }
}

impl<T: Float, const SQUARED: bool> rowwise::Rows for Narrow<'_, T, SQUARED> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut scratch = Scratch::<T, 1>::new(self.0.labels.shape[1] * GROUP);
        let [tile] = scratch.arrays().map(|array| array.as_chunks_mut().0);
        let mut lanes = [0.0; GROUP];
        let mut first = rows.start;
        while first < rows.end {
            let n = GROUP.min(rows.end - first);
            let values = self.group(first, n, tile);
            self.0.buffers.write_values(first, n, &values);
            for r in 0..GROUP {
                lanes[r] += values[r];
            }
            first += GROUP;
        }
        reduce::sum(lanes)
    }
}

#[derive(Clone, Copy)]
struct Wide<'a, T, const SQUARED: bool>(Rows<'a, T, SQUARED>);

/// What the classes of a row add up to.
struct Sums {
    values: [f64; LANES],
    slopes: [f64; LANES],
}

impl<T: Float, const SQUARED: bool> Wide<'_, T, SQUARED> {
    /// `n` classes of a row from `start` on, where the target is the class `target`.
    #[inline(always)]
    fn piece(
        &self,
        start: usize,
        n: usize,
        target: usize,
        [shift, factor]: [f64; 2],
        sums: &mut Sums,
    ) {
        let buffers = &self.0.buffers;
        let x: [T; LANES] = buffers.read(start, n, T::ZERO);
        // The row after this one arrives while this one computes.
        buffers.prefetch(start + self.0.labels.shape[1], LANES);
        let mut gradient = [T::ZERO; LANES];
        for i in 0..LANES {
            let is_out = (i as u32 == target as u32) | (i as u32 >= n as u32);
            let (value, slope) = Rows::<T, SQUARED>::hinge(shift + x[i].to_f64(), is_out);
            sums.values[i] += value;
            sums.slopes[i] += slope;
            gradient[i] = T::from_f64(factor * slope);
        }
        buffers.write(start, n, &gradient);
    }

    #[inline(always)]
    fn row(&self, row: usize) -> f64 {
        let rows = &self.0;
        let classes = rows.labels.shape[1];
        let start = row * classes;
        let (target, shift, weight) = rows.target(row);
        let factor = weight * rows.scale;
        let mut sums = Sums {
            values: [0.0; LANES],
            slopes: [0.0; LANES],
        };
        let whole = classes - classes % LANES;
        let mut j = 0;
        while j < whole {
            // Far beyond the lanes where the target is not among them.
            let place = target.wrapping_sub(j).min(LANES);
            self.piece(start + j, LANES, place, [shift, factor], &mut sums);
            j += LANES;
        }
        if whole < classes {
            let place = target.wrapping_sub(whole).min(LANES);
            let n = classes - whole;
            self.piece(start + whole, n, place, [shift, factor], &mut sums);
        }
        if rows.buffers.has_gradient() {
            let slope = reduce::sum(sums.slopes);
            // SAFETY: nothing else is read or written before the slice is dropped.
            let gradient = unsafe { rows.buffers.gradient(start, classes) };
            gradient[target] = T::from_f64(-factor * slope);
        }
        weight * reduce::sum(sums.values)
    }
}

impl<T: Float, const SQUARED: bool> rowwise::Rows for Wide<'_, T, SQUARED> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut total = 0.0;
        for row in rows {
            let value = self.row(row);
            self.0.buffers.write_values(row, 1, &[value]);
            total += value;
        }
        total
    }
}

impl MultiMargin {
    /// The value under `reduction`, and the gradient times `loss_scale`.
    ///
    /// # Errors
    /// A wrong length, a target that is no class, or an `ignore_index`.
    pub fn compute<T: Float>(
        self,
        labels: Labels<'_, T>,
        input: Input<'_, T>,
        reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        if self.squared {
            self.sum::<T, true>(labels, input, reduction, loss_scale)
        } else {
            self.sum::<T, false>(labels, input, reduction, loss_scale)
        }
    }

    fn sum<T: Float, const SQUARED: bool>(
        self,
        labels: Labels<'_, T>,
        input: Input<'_, T>,
        mut reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        if labels.ignore_index.is_some() {
            let why = "multi_margin has no ignore_index: every row counts";
            return Err(Error::Value(why.into()));
        }
        // PyTorch's mean is over rows, whatever their weights.
        let [count, scale] = reduction.scales(labels.check_classes(false)?, loss_scale);
        let [rows, classes] = labels.shape;
        let len = rowwise::elements(labels.shape)?;
        // SAFETY: each task of `rowwise` has rows of its own, and a row elements and a value of its own.
        let buffers = unsafe { Buffers::new(input, len, &mut reduction, rows) }?;
        let loss = Rows::<T, SQUARED> {
            buffers,
            labels,
            margin: self.margin,
            share: if self.average {
                1.0 / classes as f64
            } else {
                1.0
            },
            scale,
        };
        let sum = if classes <= NARROW {
            rowwise::sum(Narrow(loss), rows, classes)
        } else {
            rowwise::sum(Wide(loss), rows, classes)
        };
        Ok(sum / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Target;

    #[test]
    fn by_hand() {
        let loss = MultiMargin {
            squared: false,
            margin: 1.0,
            average: false,
        };
        let labels = Labels {
            shape: [1, 3],
            target: Target::I64(&[0]),
            weight: None,
            ignore_index: None,
        };
        let x = [3.2, 5.1, -1.7];
        let mut gradient = [7.0; 3];
        let input = Input::Gradient(&x, &mut gradient);
        let value = loss.compute(labels, input, Reduction::Mean, 1.0);
        assert!((value.expect("good arguments") - 2.9).abs() < 1e-15);
        assert_eq!(gradient, [-1.0, 1.0, 0.0]);
    }

    #[test]
    fn a_target_at_minus_infinity_is_infinitely_wrong() {
        // 65 classes: the last piece has lanes without a class.
        for classes in [3, 65] {
            let mut x = vec![0.0; classes];
            x[1] = f64::NEG_INFINITY;
            let loss = MultiMargin {
                squared: false,
                margin: 1.0,
                average: true,
            };
            let labels = Labels {
                shape: [1, classes],
                target: Target::I32(&[1]),
                weight: None,
                ignore_index: None,
            };
            let value = loss.compute(labels, Input::Value(&x), Reduction::Sum, 1.0);
            assert_eq!(value, Ok(f64::INFINITY));
        }
    }
}
