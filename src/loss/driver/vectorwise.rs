//! Driver of the losses of vectors, where a row of every input belongs to one example.
//!
//! A first pass over a row sums terms of its elements, the value is computed from the sums, and a
//! second pass writes the gradients while the row is in L1. All arithmetic is in `f64`, because
//! distances are small differences.

use std::ops::Range;

use crate::error::Result;
use crate::exec::isa;
use crate::loss::checks::exactly;
use crate::loss::driver::buffers::{Buffers, Input, Reduction};
use crate::loss::driver::rowwise;
use crate::numeric::float::Float;
use crate::reduce;

/// The total of the terms of a row.
pub trait Total: Copy + Send + Sync {
    /// The total of no terms.
    const ZERO: Self;
    /// Adds a term.
    fn add(self, term: f64) -> Self;
    /// Combines two totals.
    fn join(self, other: Self) -> Self;
}

impl Total for f64 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn add(self, term: f64) -> Self {
        self + term
    }

    #[inline(always)]
    fn join(self, other: Self) -> Self {
        self + other
    }
}

/// A loss of `G` vectors, from `K` totals over their elements.
pub trait Vectors<const G: usize, const K: usize>: Copy + Send + Sync {
    /// The type of the totals.
    type Total: Total;
    /// The result of the first pass that the second needs.
    type Slope: Copy;
    /// The terms that one element of each vector adds to the totals.
    fn terms(self, x: [f64; G]) -> [f64; K];
    /// The value of a row.
    fn value(self, row: usize, totals: [Self::Total; K]) -> (f64, Self::Slope);
    /// The derivatives by one element of each vector.
    fn derivatives(self, slope: Self::Slope, x: [f64; G]) -> [f64; G];
}

/// Three totals of 16 `f64` lanes fill six AVX-512 or twelve AVX2 registers.
const LANES: usize = 16;

#[derive(Clone, Copy)]
struct VectorRows<'a, T, L, const G: usize, const K: usize> {
    loss: L,
    buffers: [Buffers<'a, T>; G],
    length: usize,
    scale: f64,
    /// Whether a gradient replaces its input.
    in_place: bool,
}

impl<T: Float, L: Vectors<G, K>, const G: usize, const K: usize> VectorRows<'_, T, L, G, K> {
    /// # Safety
    /// `n <= LANES` elements from `start` are in bounds of every buffer.
    #[inline(always)]
    unsafe fn read(&self, start: usize, n: usize) -> [[f64; LANES]; G] {
        let mut wide = [[0.0; LANES]; G];
        for g in 0..G {
            // SAFETY: n <= LANES elements from `start` are in bounds by this function's own
            // contract.
            let x: [T; LANES] = unsafe { self.buffers[g].read_unchecked(start, n, T::ZERO) };
            for i in 0..LANES {
                wide[g][i] = x[i].to_f64();
            }
        }
        wide
    }

    /// # Safety
    /// `n <= LANES` elements from `start` are in bounds of every buffer.
    #[inline(always)]
    unsafe fn add(&self, start: usize, n: usize, lanes: &mut [[L::Total; LANES]; K]) {
        // SAFETY: n <= LANES elements from `start` are in bounds by this function's own contract.
        let x = unsafe { self.read(start, n) };
        let mut terms = [[0.0; LANES]; K];
        for i in 0..LANES {
            let mut element = [0.0; G];
            for g in 0..G {
                element[g] = x[g][i];
            }
            let term = self.loss.terms(element);
            for k in 0..K {
                terms[k][i] = term[k];
            }
        }
        for k in 0..K {
            for i in 0..LANES {
                lanes[k][i] = lanes[k][i].add(terms[k][i]);
            }
        }
    }

    /// # Safety
    /// `n <= LANES` elements from `start` are in bounds of every buffer.
    #[inline(always)]
    unsafe fn write(&self, start: usize, n: usize, slope: L::Slope) {
        // SAFETY: n <= LANES elements from `start` are in bounds by this function's own contract.
        let x = unsafe { self.read(start, n) };
        let mut gradients = [[T::ZERO; LANES]; G];
        for i in 0..LANES {
            let mut element = [0.0; G];
            for g in 0..G {
                element[g] = x[g][i];
            }
            let derivatives = self.loss.derivatives(slope, element);
            for g in 0..G {
                gradients[g][i] = T::from_f64(derivatives[g] * self.scale);
            }
        }
        for g in 0..G {
            // SAFETY: n <= LANES elements from `start` are in bounds by this function's own
            // contract.
            unsafe { self.buffers[g].write_unchecked(start, n, &gradients[g]) };
        }
    }

    /// The value of a row. The elements up to `end` belong to this row and to those after it that
    /// the same task processes next.
    #[inline(always)]
    fn row(&self, row: usize, end: usize) -> f64 {
        let start = row * self.length;
        // One check for all pieces, which are short: a check of each costs a tenth of the time. The
        // buffers have the same length, which `compute` checked.
        self.buffers[0].check(start, end - start);
        let whole = self.length - self.length % LANES;
        let rest = self.length - whole;
        // The last piece is a whole one where that is possible: it reads the beginning of the next
        // rows, whose terms are left out, and writes to gradients that are written again after it.
        // In place it would overwrite inputs. Triplets of 65536 x 30 take 2.5 ns per element, and
        // 4.7 with partial pieces (one thread of Zen 4).
        let may_pass = !self.in_place && start + whole + LANES <= end;
        let n = if may_pass { LANES } else { rest };
        let mut lanes = [[L::Total::ZERO; LANES]; K];
        let mut j = 0;
        while j < whole {
            // SAFETY: the piece is part of the row, which is in bounds, and has LANES elements.
            unsafe { self.add(start + j, LANES, &mut lanes) };
            j += LANES;
        }
        isa::keep_in_memory(&mut lanes);
        if rest > 0 {
            let mut added = lanes;
            // SAFETY: n elements are in bounds, as they end in this row or before `end`.
            unsafe { self.add(start + whole, n, &mut added) };
            isa::keep_in_memory(&mut added);
            for k in 0..K {
                for i in 0..LANES {
                    // Without masked stores, which are slow on Zen 3.
                    isa::one_iteration();
                    if i < rest {
                        lanes[k][i] = added[k][i];
                    }
                }
            }
        }
        let mut totals = [L::Total::ZERO; K];
        for k in 0..K {
            totals[k] = reduce::halve(lanes[k], L::Total::join);
        }
        let (value, slope) = self.loss.value(row, totals);
        if self.buffers[0].has_gradient() {
            let mut j = 0;
            while j < whole {
                // SAFETY: the piece is part of the row, which is in bounds, and has LANES elements.
                unsafe { self.write(start + j, LANES, slope) };
                j += LANES;
            }
            if rest > 0 {
                // SAFETY: as above.
                unsafe { self.write(start + whole, n, slope) };
            }
        }
        value
    }
}

impl<T: Float, L: Vectors<G, K>, const G: usize, const K: usize> rowwise::RowKernel
    for VectorRows<'_, T, L, G, K>
{
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut total = 0.0;
        let end = rows.end * self.length;
        for row in rows {
            let value = self.row(row, end);
            self.buffers[0].write_values(row, 1, &[value]);
            total += value;
        }
        total
    }
}

/// The value of a loss under `reduction` (0 for [`Reduction::None`]), and its gradients times
/// `loss_scale`.
///
/// # Errors
/// Lengths differ.
pub fn compute<T: Float, L: Vectors<G, K>, const G: usize, const K: usize>(
    loss: L,
    inputs: [Input<'_, T>; G],
    [rows, length]: [usize; 2],
    mut reduction: Reduction<'_, T>,
    loss_scale: f64,
) -> Result<f64> {
    let len = rowwise::elements([rows, length])?;
    let [count, scale] = reduction.scales(rows as f64, loss_scale);
    let mut values = Some(&mut reduction);
    let mut buffers = Vec::with_capacity(G);
    for input in inputs {
        // SAFETY: each task of `rowwise` has its own rows, and each row its own elements and value,
        // so that no two tasks touch the same element.
        buffers.push(unsafe {
            match values.take() {
                Some(reduction) => Buffers::new(input, len, reduction, rows),
                None => Buffers::further(input, len),
            }
        }?);
    }
    let kernel = VectorRows {
        loss,
        in_place: buffers.iter().any(Buffers::is_in_place),
        buffers: exactly(buffers)?,
        length,
        scale,
    };
    Ok(rowwise::sum(kernel, rows, length) / count)
}
