//! Multi-class margin loss: `w_t sum_j max(0, margin - x_t + x_j)^p` per row, summed over the
//! classes `j` other than its target `t`, and optionally divided by the number of classes.
//!
//! As in cross-entropy, rows of few classes are processed in groups, where lane `r` is row `r`; a
//! row of many classes fills the lanes by itself. Gaps are in `f64`, where the kink is exact.

use std::ops::Range;

use crate::error::Result;
use crate::exec::scratch::Scratch;
use crate::hyper::{Kind, NON_NEGATIVE, hyper};
use crate::loss::call::{Call, Loss, Scores};
use crate::loss::driver::buffers::Buffers;
use crate::loss::driver::rowwise::{self, GROUP};
use crate::loss::labels::Labels;
use crate::loss::signature::Signature;
use crate::numeric::float::Float;
use crate::numeric::math::Math;
use crate::reduce;

hyper! {
    /// The hinge of the score of every class against that of the target.
    #[derive(Copy)]
    pub struct MultiMargin {
        /// The exponent of the hinges.
        p: u64, Kind::Choice(&[1, 2]);
        /// The lead of the target from which on a class adds nothing.
        margin: f64, NON_NEGATIVE;
        /// Whether the sum is divided by the number of classes.
        average_classes: bool, Kind::Flag;
    }
}

impl Loss for MultiMargin {
    const SIGNATURE: Signature = Signature {
        // PyTorch's loss has none either.
        ignore_index: false,
        weighted_mean: false,
        ..Signature::CLASSES
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        if self.p == 2 {
            self.sum::<T, true>(call)
        } else {
            self.sum::<T, false>(call)
        }
    }
}

/// 32 `f64` lanes fill four AVX-512 or eight AVX2 registers.
const LANES: usize = 32;

/// The most classes for which rows are processed in groups: such a row fills the lanes too little.
const NARROW: usize = 2 * LANES - 1;

#[derive(Clone, Copy)]
struct HingeRows<'a, T, const SQUARED: bool> {
    buffers: Buffers<'a, T>,
    labels: Labels<'a, T>,
    margin: f64,
    /// 1, or 1 over the number of classes.
    share: f64,
    /// The factor of the gradient.
    scale: f64,
}

impl<T: Float, const SQUARED: bool> HingeRows<'_, T, SQUARED> {
    /// The target of a row, the number to add to a score to get its gap, and the factor of the
    /// value.
    #[inline(always)]
    fn target(&self, row: usize) -> (usize, f64, f64) {
        // Every row has a class: the signature has no `ignore_index`, and all targets were checked.
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
struct Narrow<'a, T, const SQUARED: bool>(HingeRows<'a, T, SQUARED>);

impl<T: Float, const SQUARED: bool> Narrow<'_, T, SQUARED> {
    /// The values of up to `GROUP` rows; 0 for lanes from `n` on.
    #[inline(always)]
    fn group(&self, first: usize, n: usize, tile: &mut [[T; GROUP]]) -> [f64; GROUP] {
        let rows = &self.0;
        rows.buffers.read_transposed(first, n, tile);
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
                let (value, slope) =
                    HingeRows::<T, SQUARED>::hinge(shift[r] + x[r].to_f64(), is_target);
                sums[r] += value;
                slopes[r] += slope;
                x[r] = T::from_f64(factor[r] * slope);
            }
        }
        for r in 0..n {
            tile[target[r] as usize][r] = T::from_f64(-factor[r] * slopes[r]);
        }
        rows.buffers.write_transposed(first, n, tile);
        for r in 0..GROUP {
            sums[r] = if r < n { weight[r] * sums[r] } else { 0.0 };
        }
        sums
    }
}

impl<T: Float, const SQUARED: bool> rowwise::RowKernel for Narrow<'_, T, SQUARED> {
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
struct Wide<'a, T, const SQUARED: bool>(HingeRows<'a, T, SQUARED>);

/// Sums over the classes of a row.
struct HingeSums {
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
        sums: &mut HingeSums,
    ) {
        let buffers = &self.0.buffers;
        let x: [T; LANES] = buffers.read(start, n, T::ZERO);
        // Prefetch the next row while this one is computed.
        buffers.prefetch(start + self.0.labels.shape[1], LANES);
        let mut gradient = [T::ZERO; LANES];
        for i in 0..LANES {
            let is_out = (i as u32 == target as u32) | (i as u32 >= n as u32);
            let (value, slope) = HingeRows::<T, SQUARED>::hinge(shift + x[i].to_f64(), is_out);
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
        let mut sums = HingeSums {
            values: [0.0; LANES],
            slopes: [0.0; LANES],
        };
        let whole = classes - classes % LANES;
        let mut j = 0;
        while j < whole {
            // Not a lane where the target is not in this piece.
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
            // SAFETY: this task has the row alone, and the slice is dropped before anything else of
            // the row is read or written.
            let gradient = unsafe { rows.buffers.gradient(start, classes) };
            gradient[target] = T::from_f64(-factor * slope);
        }
        weight * reduce::sum(sums.values)
    }
}

impl<T: Float, const SQUARED: bool> rowwise::RowKernel for Wide<'_, T, SQUARED> {
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
    fn sum<T: Float, const SQUARED: bool>(&self, call: Call<'_, T>) -> Result<f64> {
        let Scores {
            labels,
            input,
            mut reduction,
            loss_scale,
        } = call.scores()?;
        // As in PyTorch, the mean is over rows and does not depend on their weights.
        let [count, scale] = reduction.scales(labels.check_classes(false)?, loss_scale);
        let [rows, classes] = labels.shape;
        let len = rowwise::elements(labels.shape)?;
        // SAFETY: each task of `rowwise` has its own rows, and each row its own elements and value,
        // so that no two tasks touch the same element.
        let buffers = unsafe { Buffers::new(input, len, &mut reduction, rows) }?;
        let loss = HingeRows::<T, SQUARED> {
            buffers,
            labels,
            margin: self.margin,
            share: if self.average_classes {
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
    use crate::loss::{Input, Reduction, Target};

    #[test]
    fn by_hand() {
        let loss = MultiMargin {
            p: 1,
            margin: 1.0,
            average_classes: false,
        };
        let x = [3.2, 5.1, -1.7];
        let mut gradient = [7.0; 3];
        let inputs = vec![Input::Gradient(&x, &mut gradient)];
        let value = loss.evaluate(Call {
            shape: [1, 3],
            ..Call::new(inputs, Some(Target::Integers(&[0])), Reduction::Mean)
        });
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
                p: 1,
                margin: 1.0,
                average_classes: true,
            };
            let inputs = vec![Input::Value(&x)];
            let value = loss.evaluate(Call {
                shape: [1, classes],
                ..Call::new(inputs, Some(Target::Integers(&[1])), Reduction::Sum)
            });
            assert_eq!(value, Ok(f64::INFINITY));
        }
    }
}
