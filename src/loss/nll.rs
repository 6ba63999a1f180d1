//! Negative log-likelihood: `-w_t x_t` per row of log-probabilities, for its target class `t`.

use std::ops::Range;

use crate::error::Result;
use crate::hyper::hyper;
use crate::loss::call::{Call, Loss, Scores};
use crate::loss::driver::buffers::Buffers;
use crate::loss::driver::rowwise::{self, GROUP};
use crate::loss::labels::Labels;
use crate::loss::signature::Signature;
use crate::numeric::float::Float;
use crate::numeric::math::Math;
use crate::reduce;

hyper! {
    /// The negative log-likelihood of classes, given log-probabilities.
    pub struct Nll;
}

impl Loss for Nll {
    const SIGNATURE: Signature = Signature::CLASSES;

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let Scores {
            labels,
            input,
            mut reduction,
            loss_scale,
        } = call.scores()?;
        let [count, scale] = reduction.scales(labels.check_classes(true)?, loss_scale);
        let [rows, classes] = labels.shape;
        let len = rowwise::elements(labels.shape)?;
        // SAFETY: each task of `rowwise` has its own rows, and each row its own elements and value,
        // so that no two tasks touch the same element.
        let buffers = unsafe { Buffers::new(input, len, &mut reduction, rows) }?;
        let loss = LikelihoodRows {
            buffers,
            labels,
            scale,
        };
        Ok(rowwise::sum(loss, rows, classes) / count)
    }
}

#[derive(Clone, Copy)]
struct LikelihoodRows<'a, T> {
    buffers: Buffers<'a, T>,
    labels: Labels<'a, T>,
    scale: f64,
}

impl<T: Float> rowwise::RowKernel for LikelihoodRows<'_, T> {
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
                // Nearly all elements are 0, and one long fill is faster than many short ones.
                // SAFETY: this task has these rows alone, and `gradient` is dropped before anything
                // else of them is read or written.
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
