//! Driver of the losses of rows, one row of scores per example.
//!
//! Rows are divided into blocks whose size depends on the number of classes only; blocks are
//! combined by a fixed tree.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::exec::isa::{self, Kernel};
use crate::exec::pool;
use crate::reduce::Partials;

/// Elements per block, about: 16 KiB of `f32`. Under Miri small arrays have several, as with
/// [`pool::CHUNK`].
const BLOCK: usize = if cfg!(miri) { 128 } else { 4096 };

/// Elements per chunk of parallel work, about, at least. In a short chunk the prefetcher of the
/// processor and the rows that kernels prefetch beyond its end cost much: cross-entropy of
/// 65536 x 100 takes 4.5 ms with 8 Ki elements, 3.1 with 32 Ki, and 2.9 with 256 Ki, and that of
/// 1024 x 32000 13.6 ms with 32 Ki and 10 with 256 Ki (two threads of Zen 4).
const LEAST_CHUNK: usize = if cfg!(miri) { BLOCK } else { 8 * BLOCK };

/// At most.
const MOST_CHUNK: usize = if cfg!(miri) { BLOCK } else { 64 * BLOCK };

/// Chunks per thread, as far as these limits allow. With few chunks a thread waits for another:
/// cross-entropy of 65536 x 10 takes 0.44 ms with 20 chunks for two threads, and 0.51 with 3.
const CHUNKS_PER_THREAD: usize = 16;

/// The work per row beside that of its elements: less than that of cross-entropy, which takes 10 ns
/// per row of two classes, as 25 units of work do, and more than that of losses without
/// exponentials (Zen 3, AVX2).
const PER_ROW: usize = 16;

/// Block lengths are a multiple of this, so that a kernel may take as many rows at once.
pub(crate) const GROUP: usize = 32;

/// The kernel of a loss of rows.
pub(crate) trait RowKernel: Copy + Send + Sync {
    /// The sum of the values of some rows. `#[inline(always)]`, as in a [`Kernel`].
    fn sum(self, rows: Range<usize>) -> f64;
}

/// The most rows of length 0. Memory does not bound their number, so that without this limit a call
/// could loop over 2^63 rows.
const EMPTY_ROWS: usize = 1 << 24;

/// The number of elements of all rows.
///
/// # Errors
/// It does not fit a `usize`, or there are more than [`EMPTY_ROWS`] rows of length 0.
pub(crate) fn elements([rows, length]: [usize; 2]) -> Result<usize> {
    match rows.checked_mul(length) {
        Some(elements) if length > 0 || rows <= EMPTY_ROWS => Ok(elements),
        _ => Err(Error::Value(format!(
            "{rows} rows of {length} elements are too many"
        ))),
    }
}

struct RowBlock<R> {
    loss: R,
    rows: Range<usize>,
}

impl<R: RowKernel> Kernel for RowBlock<R> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        self.loss.sum(self.rows)
    }
}

/// Rows per block: whole groups where rows are short, single rows where they are long.
pub(crate) fn rows_per_block(classes: usize) -> usize {
    let rows = BLOCK / classes.max(1);
    if rows >= GROUP {
        rows - rows % GROUP
    } else {
        rows.max(1)
    }
}

/// The sum of the values of all rows.
pub(crate) fn sum<R: RowKernel>(loss: R, rows: usize, classes: usize) -> f64 {
    let tier = isa::current();
    let length = rows_per_block(classes);
    let blocks = rows.div_ceil(length);
    let block = |index: usize| {
        let rows = index * length..rows.min((index + 1) * length);
        tier.run(RowBlock { loss, rows })
    };
    if blocks <= 1 {
        return if blocks == 1 { block(0) } else { 0.0 };
    }
    let partials = Partials::new(blocks);
    let elements = rows.saturating_mul(classes);
    let chunk = (elements / (CHUNKS_PER_THREAD * pool::count())).clamp(LEAST_CHUNK, MOST_CHUNK);
    let per_chunk = (chunk / (length * classes).max(1)).max(1);
    // The unit of work is an AdamW step of one element, and an exponential costs one to two.
    let work = rows.saturating_mul(classes.saturating_add(PER_ROW));
    pool::run(blocks.div_ceil(per_chunk), work, |chunk| {
        for index in chunk * per_chunk..((chunk + 1) * per_chunk).min(blocks) {
            partials.set(index, block(index));
        }
    });
    partials.total()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Count;

    impl RowKernel for Count {
        #[inline(always)]
        fn sum(self, rows: Range<usize>) -> f64 {
            rows.len() as f64
        }
    }

    #[test]
    fn elements_that_cannot_be_counted_are_refused() {
        assert_eq!(elements([0, usize::MAX]), Ok(0));
        assert_eq!(elements([EMPTY_ROWS, 0]), Ok(0));
        assert_eq!(elements([usize::MAX, 1]), Ok(usize::MAX));
        for shape in [
            [EMPTY_ROWS + 1, 0],
            [usize::MAX / 2 + 1, 2],
            [1 << 33, 1 << 33],
        ] {
            assert!(matches!(elements(shape), Err(Error::Value(_))), "{shape:?}");
        }
    }

    #[test]
    fn every_row_is_in_one_block() {
        for classes in [0, 1, 3, 10, 127, 128, 129, 1000, 100_000] {
            for rows in [0, 1, 31, 32, 33, if cfg!(miri) { 70 } else { 5000 }] {
                assert_eq!(sum(Count, rows, classes), rows as f64, "{rows} x {classes}");
            }
        }
    }
}
