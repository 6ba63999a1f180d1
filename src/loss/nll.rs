//! Negative log-likelihood: `-w_t x_t` per row of log-probabilities, for its target class `t`.

use std::ops::Range;

use super::{Buffers, Input, Labels, Reduction};
use crate::error::Result;
use crate::loss::driver::rowwise::{self, GROUP};
use crate::numeric::float::Float;
use crate::reduce;

/// The likelihood of classes, given its logarithms.
#[derive(Clone, Copy, Debug)]
pub struct Nll;

#[derive(Clone, Copy)]
struct Rows<'a, T> {
    buffers: Buffers<'a, T>,
    labels: Labels<'a, T>,
    scale: f64,
}

impl<T: Float> rowwise::Rows for Rows<'_, T> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let Self {
            buffers, labels, ..
        } = self;
        let classes = labels.shape[1];
        let mut lanes = [0.0; GROUP];
        let mut first = rows.start;
        while first < rows.end {
            let n = GROUP.min(rows.end - first);
            let mut values = [0.0; GROUP];
            for r in 0..n {
                if let Some(class) = labels.class(first + r) {
                    let x = buffers.read_one((first + r) * classes + class).to_f64();
                    values[r] = labels.weight_of(class).weigh(-x);
                }
            }
            if buffers.has_gradient() {
                // Nearly all of it is 0, and one long fill is faster than many short ones.
                // SAFETY: nothing else is read or written before `gradient` is dropped.
                let gradient = unsafe { buffers.gradient(first * classes, n * classes) };
                gradient.fill(T::ZERO);
                for r in 0..n {
                    if let Some(class) = labels.class(first + r) {
                        let slope = -labels.weight_of(class) * self.scale;
                        gradient[r * classes + class] = T::from_f64(slope);
                    }
                }
            }
            buffers.write_values(first, n, &values);
            for r in 0..GROUP {
                lanes[r] += values[r];
            }
            first += GROUP;
        }
        reduce::sum(lanes)
    }
}

impl Nll {
    /// The value under `reduction`, and the gradient times `loss_scale`.
    ///
    /// # Errors
    /// A wrong length, or a target that is no class.
    pub fn compute<T: Float>(
        self,
        labels: Labels<'_, T>,
        input: Input<'_, T>,
        mut reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        let [count, scale] = reduction.scales(labels.check_classes(true)?, loss_scale);
        let [rows, classes] = labels.shape;
        let len = rowwise::elements(labels.shape)?;
        // SAFETY: each task of `rowwise` has rows of its own, and a row elements and a value of its own.
        let buffers = unsafe { Buffers::new(input, len, &mut reduction, rows) }?;
        let loss = Rows {
            buffers,
            labels,
            scale,
        };
        Ok(rowwise::sum(loss, rows, classes) / count)
    }
}
