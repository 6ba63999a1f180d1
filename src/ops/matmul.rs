//! Matrix products, bitwise identical on every tier and for any number of threads.
//!
//! `C = A B` is computed in tiles that stay in registers, of [`ROWS`] rows and one or two panels of
//! [`COLS`] columns. Every element is a sum over k in order, so results depend neither on the tiles
//! nor on the threads. B is first copied into its panels, which the innermost loop reads
//! contiguously.

use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool;
use crate::numeric::float::Float;

/// With 16 columns of `f32`, 6 rows take 12 of the 16 registers of AVX2, and with 32 columns 12 of
/// the 32 of AVX-512. One panel would do there for the latency of additions, but each load of an
/// element of A then serves one product, and loads limit the loop.
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
    let pairs = tier.is_wide() && panels >= 2 * pool::count();
    let together = if pairs { 2 } else { 1 };
    pool::run(panels.div_ceil(together), m * n * k / 16, |chunk| {
        let panel = chunk * together;
        let b = &packed[panel * COLS * k..];
        let col = panel * COLS;
        let first = if symmetric { col / ROWS * ROWS } else { 0 };
        for row in (first..m).step_by(ROWS) {
            let a = &a[row * k..(row + ROWS).min(m) * k];
            let store = |i: usize, col: usize, sums: &[T; COLS]| {
                let (from, width) = ((row + i) * n + col, COLS.min(n - col));
                tier.run(Store {
                    // SAFETY: each chunk stores the elements of other columns of C.
                    c: unsafe { shared.slice_mut(from, from + width) },
                    sums,
                    from,
                    then,
                });
            };
            if together == 2 && panel + 1 < panels {
                let sums = &mut [[[T::ZERO; COLS]; ROWS]; 2];
                tier.run(Tile { a, b, k, sums });
                let [left, right] = sums;
                for (i, (left, right)) in left.iter().zip(right).enumerate().take(m - row) {
                    store(i, col, left);
                    store(i, col + COLS, right);
                }
            } else {
                let sums = &mut [[[T::ZERO; COLS]; ROWS]];
                tier.run(Tile { a, b, k, sums });
                for (i, sums) in sums[0].iter().enumerate().take(m - row) {
                    store(i, col, sums);
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
    if !b.transposed {
        for (i, to) in panel.chunks_mut(COLS).enumerate() {
            to[..width].copy_from_slice(&b.data[i * n + col..][..width]);
        }
        return;
    }
    for (block, panel) in panel.chunks_mut(BLOCK * COLS).enumerate() {
        for j in 0..width {
            let column = &b.data[(col + j) * k + block * BLOCK..];
            for (to, x) in panel.chunks_mut(COLS).zip(column) {
                to[j] = *x;
            }
        }
    }
}

/// The size of square blocks that are transposed at once. Two blocks of `f32` take 4 KiB each, so
/// both fit in the L1 cache.
const BLOCK: usize = 32;

/// Copies the elements below the diagonal of a square matrix to those above it.
fn mirror<T: Float>(c: &mut [T], n: usize) {
    let shared = pool::Shared::new(c);
    pool::run(n.div_ceil(BLOCK), n * n / 4, |block| {
        let rows = block * BLOCK..n.min((block + 1) * BLOCK);
        for start in (rows.start..n).step_by(BLOCK) {
            let cols = start..n.min(start + BLOCK);
            // Rows are often a multiple of 4 KiB apart, so that the L1 cache cannot hold a line of
            // each: every line is read, and written, once.
            let mut copy = [[T::ZERO; BLOCK]; BLOCK];
            for (j, copy) in cols.clone().zip(&mut copy) {
                let end = rows.end.min(j);
                if rows.start < end {
                    // SAFETY: all reads are below the diagonal, and all writes above it, in the
                    // rows of one chunk.
                    let below = unsafe { shared.slice_mut(j * n + rows.start, j * n + end) };
                    copy[..below.len()].copy_from_slice(below);
                }
            }
            for i in rows.clone() {
                let from = cols.start.max(i + 1);
                if from < cols.end {
                    // SAFETY: as above.
                    let above = unsafe { shared.slice_mut(i * n + from, i * n + cols.end) };
                    for (above, copy) in above.iter_mut().zip(&copy[from - cols.start..]) {
                        *above = copy[i - rows.start];
                    }
                }
            }
        }
    });
}

/// Stores a row of a tile: `alpha sums + beta base` of the elements of C from an index.
struct Store<'a, T> {
    c: &'a mut [T],
    sums: &'a [T; COLS],
    from: usize,
    then: Affine<'a, T>,
}

impl<T: Float> Kernel for Store<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Affine { alpha, beta, base } = self.then;
        let pairs = self.c.iter_mut().zip(self.sums);
        if let Some(base) = base {
            for ((c, sum), base) in pairs.zip(&base[self.from..]) {
                *c = beta * *base + alpha * *sum;
            }
        } else {
            for (c, sum) in pairs {
                *c = T::ZERO + alpha * *sum;
            }
        }
    }
}

/// The sums over k of up to [`ROWS`] rows of A and of `P` panels, 1 or 2.
struct Tile<'a, T, const P: usize> {
    a: &'a [T],
    b: &'a [T],
    k: usize,
    sums: &'a mut [[[T; COLS]; ROWS]; P],
}

impl<T: Float, const P: usize> Kernel for Tile<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { a, b, k, sums } = self;
        let last = a.len() / k.max(1);
        // Missing rows are replaced by copies of the first.
        let row = |i: usize| &a[if i < last { i * k } else { 0 }..][..k];
        let (b, _) = b.as_chunks::<COLS>();
        let (left, right) = (&b[..k], &b[(P - 1) * k..][..k]);
        // One variable per row and panel: a loop over rows is not always unrolled, and then the
        // sums are in memory, which makes the product five times slower.
        let [r0, r1, r2, r3, r4, r5] = [row(0), row(1), row(2), row(3), row(4), row(5)];
        let [mut s0, mut s1, mut s2, mut s3, mut s4, mut s5] = [[T::ZERO; COLS]; ROWS];
        let [mut t0, mut t1, mut t2, mut t3, mut t4, mut t5] = [[T::ZERO; COLS]; ROWS];
        for l in 0..k {
            s0 = add_product(s0, r0[l], &left[l]);
            s1 = add_product(s1, r1[l], &left[l]);
            s2 = add_product(s2, r2[l], &left[l]);
            s3 = add_product(s3, r3[l], &left[l]);
            s4 = add_product(s4, r4[l], &left[l]);
            s5 = add_product(s5, r5[l], &left[l]);
            if P == 2 {
                t0 = add_product(t0, r0[l], &right[l]);
                t1 = add_product(t1, r1[l], &right[l]);
                t2 = add_product(t2, r2[l], &right[l]);
                t3 = add_product(t3, r3[l], &right[l]);
                t4 = add_product(t4, r4[l], &right[l]);
                t5 = add_product(t5, r5[l], &right[l]);
            }
        }
        sums[0] = [s0, s1, s2, s3, s4, s5];
        if P == 2 {
            sums[1] = [t0, t1, t2, t3, t4, t5];
        }
    }
}

#[inline(always)]
fn add_product<T: Float>(sums: [T; COLS], x: T, b: &[T; COLS]) -> [T; COLS] {
    std::array::from_fn(|j| sums[j] + x * b[j])
}

/// Transposes a matrix with `cols` columns.
pub(crate) fn transpose<T: Float>(from: &[T], cols: usize, to: &mut [T]) {
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
            // Panels in pairs on several threads.
            if cfg!(miri) {
                [1, 1, 2]
            } else {
                [130, 131, 132]
            },
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
        let large = if cfg!(miri) { [2, 2] } else { [150, 90] };
        for [n, k] in [
            [1, 4],
            [16, 3],
            [70, if cfg!(miri) { 3 } else { 20 }],
            large,
        ] {
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
            for tier in Tier::supported() {
                let product = |symmetric| {
                    let mut c = vec![0.0; n * n];
                    with_threads(3, || {
                        multiply(&mut c, [n, n, k], &x, b, then, symmetric, tier)
                    });
                    c
                };
                assert_eq!(product(true), product(false), "{tier}");
            }
        }
    }
}
