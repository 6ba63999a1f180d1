//! Matrix products, bitwise identical on every tier and for any number of threads.
//!
//! `C = A B` is computed in tiles of [`ROWS`] x [`COLS`] elements that stay in registers. Every
//! element is a sum over k in order, so results depend neither on the tiles nor on the threads. B
//! is first copied into panels of [`COLS`] columns, which the innermost loop reads contiguously.

use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool;
use crate::numeric::float::Float;

/// With 16 columns of `f32`, 6 rows take 6 accumulators in AVX-512 and 12 of the 16 registers in
/// AVX2. An addition takes 3 cycles on Zen 5 and 4 on Intel, and 6 rows occupy both ports for 6
/// cycles.
const ROWS: usize = 6;
const COLS: usize = 16;

/// A row-major matrix, which may be read transposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) transposed: bool,
}

impl<'a, T> Operand<'a, T> {
    pub(crate) fn plain(data: &'a [T]) -> Self {
        Self {
            data,
            transposed: false,
        }
    }

    pub(crate) fn transposed(data: &'a [T]) -> Self {
        Self {
            data,
            transposed: true,
        }
    }
}

/// The elements of C: `alpha * product + beta * base`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine<'a, T> {
    pub(crate) alpha: T,
    pub(crate) beta: T,
    /// A matrix of the size of C, or `None` to add nothing.
    pub(crate) base: Option<&'a [T]>,
}

/// Writes `alpha A B + beta base` to `c`, which has m rows and n columns. A is m x k.
///
/// If `symmetric` is true the result must be symmetric, and only one half of it is computed.
pub(crate) fn multiply<T: Float>(
    c: &mut [T],
    [m, n, k]: [usize; 3],
    a: &[T],
    b: Operand<'_, T>,
    then: Affine<'_, T>,
    symmetric: bool,
    tier: Tier,
) {
    assert!(c.len() == m * n && a.len() == m * k && b.data.len() == k * n);
    assert!(then.base.is_none_or(|base| base.len() == c.len()));
    let panels = n.div_ceil(COLS);
    let mut packed = vec![T::ZERO; panels * COLS * k];
    pool::for_chunks(&mut packed, COLS * k, k * n / 4, |from, panel| {
        pack(b, from / k, [k, n], panel);
    });
    // The threads write whole columns. Transposing a column-major copy of C at the end would cost
    // more than the strided stores.
    let shared = pool::Shared::new(c);
    pool::run(panels, m * n * k / 16, |panel| {
        let col = panel * COLS;
        let first = if symmetric { col / ROWS * ROWS } else { 0 };
        for row in (first..m).step_by(ROWS) {
            let sums = tier.run(Tile {
                a: &a[row * k..(row + ROWS).min(m) * k],
                b: &packed[panel * COLS * k..(panel + 1) * COLS * k],
                k,
            });
            for (i, sums) in sums.iter().enumerate().take(m - row) {
                let at = (row + i) * n + col;
                let width = COLS.min(n - col);
                // SAFETY: the elements are in this panel's columns of C, which no other chunk
                // writes.
                let c = unsafe { shared.slice_mut(at, at + width) };
                for j in 0..width {
                    let base = then.base.map_or(T::ZERO, |base| then.beta * base[at + j]);
                    c[j] = base + then.alpha * sums[j];
                }
            }
        }
    });
    if symmetric {
        mirror(c, n);
    }
}

/// Copies the columns of a panel, from `col`, row by row.
fn pack<T: Float>(b: Operand<'_, T>, col: usize, [k, n]: [usize; 2], panel: &mut [T]) {
    let width = COLS.min(n - col);
    if b.transposed {
        for j in 0..width {
            let column = &b.data[(col + j) * k..][..k];
            for i in 0..k {
                panel[i * COLS + j] = column[i];
            }
        }
    } else {
        for i in 0..k {
            panel[i * COLS..][..width].copy_from_slice(&b.data[i * n + col..][..width]);
        }
    }
}

/// Copies the elements below the diagonal of a square matrix to those above it.
fn mirror<T: Float>(c: &mut [T], n: usize) {
    /// Two blocks of `f32` take 4 KiB each, so both fit in the L1 cache.
    const BLOCK: usize = 32;
    let blocks = n.div_ceil(BLOCK);
    let shared = pool::Shared::new(c);
    pool::run(blocks, n * n / 4, |block| {
        let rows = block * BLOCK..n.min((block + 1) * BLOCK);
        for cols in (rows.start..n).step_by(BLOCK) {
            for i in rows.clone() {
                for j in cols.max(i + 1)..n.min(cols + BLOCK) {
                    // SAFETY: all writes are above the diagonal, each in a row of one chunk, and
                    // all reads are below the diagonal.
                    unsafe {
                        let below = shared.slice_mut(j * n + i, j * n + i + 1)[0];
                        shared.slice_mut(i * n + j, i * n + j + 1)[0] = below;
                    }
                }
            }
        }
    });
}

/// The sums over k of up to [`ROWS`] rows of A and one panel.
struct Tile<'a, T> {
    a: &'a [T],
    b: &'a [T],
    k: usize,
}

impl<T: Float> Kernel for Tile<'_, T> {
    type Output = [[T; COLS]; ROWS];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { a, b, k } = self;
        let last = a.len() / k.max(1);
        // Missing rows are replaced by copies of the first.
        let row = |i: usize| &a[if i < last { i * k } else { 0 }..][..k];
        let (b, _) = b.as_chunks::<COLS>();
        let b = &b[..k];
        // One variable per row: a loop over rows is not always unrolled, and then the sums are in
        // memory, which makes the product five times slower.
        let [r0, r1, r2, r3, r4, r5] = [row(0), row(1), row(2), row(3), row(4), row(5)];
        let [mut s0, mut s1, mut s2, mut s3, mut s4, mut s5] = [[T::ZERO; COLS]; ROWS];
        for l in 0..k {
            s0 = add_product(s0, r0[l], &b[l]);
            s1 = add_product(s1, r1[l], &b[l]);
            s2 = add_product(s2, r2[l], &b[l]);
            s3 = add_product(s3, r3[l], &b[l]);
            s4 = add_product(s4, r4[l], &b[l]);
            s5 = add_product(s5, r5[l], &b[l]);
        }
        [s0, s1, s2, s3, s4, s5]
    }
}

#[inline(always)]
fn add_product<T: Float>(sums: [T; COLS], x: T, b: &[T; COLS]) -> [T; COLS] {
    std::array::from_fn(|j| sums[j] + x * b[j])
}

/// Transposes a matrix with `cols` columns.
pub(crate) fn transpose<T: Float>(from: &[T], cols: usize, to: &mut [T]) {
    const BLOCK: usize = 32;
    let rows = from.len() / cols.max(1);
    pool::for_chunks(to, rows.max(1) * BLOCK, from.len() / 4, |start, to| {
        let first = start / rows;
        for block in (0..rows).step_by(BLOCK) {
            for (j, to) in to.chunks_mut(rows).enumerate() {
                for i in block..rows.min(block + BLOCK) {
                    to[i] = from[i * cols + first + j];
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::isa::Tier;
    use crate::exec::pool::with_threads;

    fn numbers(n: usize, seed: f64) -> Vec<f64> {
        (0..n).map(|i| ((i as f64 + seed) * 0.7391).sin()).collect()
    }

    fn element(a: &[f64], b: &[f64], [n, k]: [usize; 2], i: usize, j: usize) -> f64 {
        let mut sum = 0.0;
        for l in 0..k {
            sum += a[i * k + l] * b[l * n + j];
        }
        sum
    }

    #[test]
    fn every_element_is_summed_in_order() {
        for [m, n, k] in [
            [1, 1, 1],
            [6, 16, 3],
            [7, 17, 5],
            [50, 33, if cfg!(miri) { 8 } else { 64 }],
            [5, 40, 0],
            [0, 3, 2],
        ] {
            let (a, b) = (numbers(m * k, 0.1), numbers(k * n, 0.2));
            let base = numbers(m * n, 0.3);
            let mut turned = vec![0.0; k * n];
            transpose(&b, n, &mut turned);
            for tier in Tier::supported() {
                for (data, transposed) in [(&b, false), (&turned, true)] {
                    let mut c = vec![0.0; m * n];
                    let then = Affine {
                        alpha: 2.0,
                        beta: 3.0,
                        base: Some(&base),
                    };
                    let b_operand = Operand { data, transposed };
                    with_threads(3, || {
                        multiply(&mut c, [m, n, k], &a, b_operand, then, false, tier);
                    });
                    for i in 0..m {
                        for j in 0..n {
                            let sum = element(&a, &b, [n, k], i, j);
                            assert_eq!(c[i * n + j], 3.0 * base[i * n + j] + 2.0 * sum);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_symmetric_product_is_that_of_the_full_computation() {
        for [n, k] in [[1, 4], [16, 3], [70, if cfg!(miri) { 3 } else { 20 }]] {
            let x = numbers(n * k, 0.5);
            let b = Operand {
                data: &x,
                transposed: true,
            };
            let then = Affine {
                alpha: 1.0,
                beta: 0.0,
                base: None,
            };
            let product = |symmetric| {
                let mut c = vec![0.0; n * n];
                multiply(&mut c, [n, n, k], &x, b, then, symmetric, Tier::Baseline);
                c
            };
            assert_eq!(product(true), product(false));
        }
    }
}
