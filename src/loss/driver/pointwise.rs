//! Driver of the elementwise losses.
//!
//! Elements are divided into blocks of `BLOCK`. Within a block, element `i` is added to lane
//! `i % LANES` in `f64`. The order in which lanes and blocks are combined depends on their number
//! only.

use crate::error::Result;
use crate::exec::isa::{self, Kernel};
use crate::exec::pool;
use crate::exec::prefetch;
use crate::loss::driver::buffers::{Buffers, Input, Reduction, piece};
use crate::numeric::float::Float;
use crate::reduce::{self, Partials, VECTOR};

/// The work of an element with exponentials or logarithms, in halves of an AdamW step. One thread
/// of Zen 3 (AVX2, in cache) takes 0.39 ns per element for AdamW, 0.21 for MSE, 1.3 for Poisson,
/// 2.2 for BCE with logits and 3.8 for BCE.
pub const ELEMENTARY: usize = 8;

/// A loss of one element at a time.
pub trait Pointwise<T: Float>: Copy + Send + Sync {
    /// The type of the values: `T`, or `f64` where they may leave the range of `f32`. With `f64`
    /// the loop of a loss on `f32` takes half as many elements at once.
    type Value: Float;

    /// The work of an element, in halves of an AdamW step: 1 with three memory streams instead of
    /// seven, or [`ELEMENTARY`].
    const WORK: usize = 1;

    /// The value for input `x` and target `y`, and its derivative by `x`.
    fn at(self, x: T, y: T) -> (Self::Value, T);
}

/// A loss of a piece of elements at a time, for those that read more than input and target or
/// compute in stages.
pub(crate) trait Piecewise<T: Float>: Copy + Send + Sync {
    /// As [`Pointwise::Value`].
    type Value: Float;

    /// As [`Pointwise::WORK`].
    const WORK: usize;

    /// Whether the elements of a piece pass several stages together, as those of
    /// [`Math::exp_nonpositive_of`](crate::numeric::math::Math::exp_nonpositive_of) do. Pieces then
    /// have [`LONGEST`] elements.
    const IN_STAGES: bool = false;

    /// The values of `n` elements from `start`, and the derivatives. The others are padding, whose
    /// results are not used.
    fn piece<const N: usize>(
        self,
        start: usize,
        n: usize,
        x: &[T; N],
        y: &[T; N],
    ) -> ([Self::Value; N], [T; N]);
}

/// A loss of one element at a time, applied to the elements of a piece.
#[derive(Clone, Copy)]
pub(crate) struct Each<L>(pub(crate) L);

impl<T: Float, L: Pointwise<T>> Piecewise<T> for Each<L> {
    type Value = L::Value;

    const WORK: usize = L::WORK;

    #[inline(always)]
    fn piece<const N: usize>(
        self,
        _start: usize,
        _n: usize,
        x: &[T; N],
        y: &[T; N],
    ) -> ([L::Value; N], [T; N]) {
        let mut values = [L::Value::ZERO; N];
        let mut derivatives = [T::ZERO; N];
        for i in 0..N {
            (values[i], derivatives[i]) = self.0.at(x[i], y[i]);
        }
        (values, derivatives)
    }
}

/// Elements per block: input, target and gradient in `f32` fit L1.
const BLOCK: usize = 4096;

/// Lanes of the sum of a block: 32 `f64` fill four AVX-512 or eight AVX2 registers.
const LANES: usize = 32;

/// The most elements of a piece.
pub(crate) const LONGEST: usize = 2 * LANES;

/// Lanes grouped by register: arrays that change as a whole stay in registers.
type Vectors<const M: usize> = [[f64; VECTOR]; M];

/// Blocks per chunk of parallel work.
const CHUNK: usize = 8;

struct ElementBlock<'a, T, L> {
    loss: L,
    buffers: Buffers<'a, T>,
    target: &'a [T],
    start: usize,
    end: usize,
    scale: T,
    /// How many elements ahead are prefetched. Without prefetching, MSE takes 1.3 times as long on
    /// AVX2 and 1.2 times on AVX-512 (8 Mi `f32`, one thread of Sapphire Rapids: 1.40 and 1.34 ns
    /// per element against 1.07 and 1.09).
    ahead: usize,
}

impl<T: Float, L: Piecewise<T>> ElementBlock<'_, T, L> {
    /// Whether large gradients are stored past the caches. Losses with elementary functions do not
    /// wait for the memory, and with such stores BCE with logits took 1.15 times as long.
    const STREAMS: bool = L::WORK < ELEMENTARY;

    /// Evaluates the loss of `n` elements from `start`. Returns their values, and 0 for the
    /// padding.
    #[inline(always)]
    fn values<const N: usize>(&self, start: usize, n: usize) -> [L::Value; N] {
        let x: [T; N] = self.buffers.read(start, n, T::ZERO);
        let y: [T; N] = piece(self.target, start, n);
        let (mut values, mut gradient) = self.loss.piece(start, n, &x, &y);
        for i in 0..N {
            gradient[i] = gradient[i] * self.scale;
        }
        if Self::STREAMS {
            self.buffers.write_once(start, n, &gradient);
        } else {
            self.buffers.write(start, n, &gradient);
        }
        self.buffers.write_values(start, n, &values);
        for i in n..N {
            values[i] = L::Value::ZERO;
        }
        values
    }

    /// [`values`](Self::values), added to `sums`.
    #[inline(always)]
    fn step<const N: usize, const M: usize>(
        &self,
        start: usize,
        n: usize,
        sums: Vectors<M>,
    ) -> Vectors<M> {
        let values = self.values::<N>(start, n);
        std::array::from_fn(|k| {
            std::array::from_fn(|i| sums[k][i] + values[VECTOR * k + i].to_f64())
        })
    }

    #[inline(always)]
    fn prefetch(&self, start: usize, n: usize) {
        if self.ahead > 0 {
            self.buffers.prefetch(start + self.ahead, n);
            prefetch::prefetch(self.target.as_ptr().wrapping_add(start + self.ahead), n);
        }
    }

    /// Evaluates the loss of the block in pieces of [`LONGEST`] elements.
    #[inline(always)]
    fn evaluate_in_stages(self) -> f64 {
        let mut lanes = [0.0; LANES];
        let mut start = self.start;
        while start < self.end {
            self.prefetch(start, LONGEST);
            let values = self.values::<LONGEST>(start, LONGEST.min(self.end - start));
            for half in values.as_chunks::<LANES>().0 {
                for i in 0..LANES {
                    lanes[i] += half[i].to_f64();
                }
            }
            start += LONGEST;
        }
        reduce::sum(lanes)
    }

    /// Evaluates the loss of the block in pieces of `N` elements. There are `M` registers in a
    /// piece, and `K` pieces in all lanes.
    #[inline(always)]
    fn evaluate<const N: usize, const M: usize, const K: usize>(self) -> f64 {
        const { assert!(M * VECTOR == N && K * N == LANES) };
        if L::IN_STAGES {
            return self.evaluate_in_stages();
        }
        let mut sums = [[[0.0; VECTOR]; M]; K];
        let mut start = self.start;
        while start + LANES <= self.end {
            self.prefetch(start, LANES);
            for k in 0..K {
                sums[k] = self.step::<N, M>(start + k * N, N, sums[k]);
            }
            start += LANES;
        }
        for k in 0..K {
            if start < self.end {
                let n = N.min(self.end - start);
                sums[k] = self.step::<N, M>(start, n, sums[k]);
                start += n;
            }
        }
        let mut lanes = [0.0; LANES];
        for i in 0..LANES {
            lanes[i] = sums[i / N][i % N / VECTOR][i % VECTOR];
        }
        reduce::sum(lanes)
    }
}

impl<T: Float, L: Piecewise<T>> Kernel for ElementBlock<'_, T, L> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        // With 32, the 16 registers of AVX2 hold neither the sums nor the constants of exp and ln.
        // Before it was computed in stages, BCE with logits took 1.17 times as long there, and with
        // 16 it took 1.2 times as long on AVX-512.
        self.evaluate::<16, 2, 2>()
    }

    #[inline(always)]
    fn run_wide(self) -> f64 {
        self.evaluate::<32, 4, 1>()
    }
}

/// The value of a loss under `reduction` (0 for [`Reduction::None`]), and its gradient times
/// `loss_scale`.
///
/// # Errors
/// Lengths differ.
pub fn compute<T: Float, L: Pointwise<T>>(
    loss: L,
    input: Input<'_, T>,
    target: &[T],
    reduction: Reduction<'_, T>,
    loss_scale: f64,
) -> Result<f64> {
    compute_pieces(Each(loss), input, target, reduction, loss_scale)
}

/// [`compute`] piece by piece.
pub(crate) fn compute_pieces<T: Float, L: Piecewise<T>>(
    loss: L,
    input: Input<'_, T>,
    target: &[T],
    mut reduction: Reduction<'_, T>,
    loss_scale: f64,
) -> Result<f64> {
    let len = target.len();
    let [count, scale] = reduction.scales(len as f64, loss_scale);
    let tier = isa::current();
    // SAFETY: each task below has its own blocks, and each block its own elements, so that no two
    // tasks touch the same element. Each writes them once and holds the result of `finish`.
    let buffers = unsafe {
        let buffers = Buffers::new(input, len, &mut reduction, len)?;
        if ElementBlock::<T, L>::STREAMS {
            buffers.written_once(tier)
        } else {
            buffers
        }
    };
    let scale = T::from_f64(scale);
    let blocks = len.div_ceil(BLOCK);
    let partials = Partials::new(blocks);
    let ahead = prefetch::ahead(len);
    let work = len.saturating_mul(L::WORK) / 2;
    pool::run(blocks.div_ceil(CHUNK), work, |chunk| {
        let _finish = buffers.finish();
        for block in chunk * CHUNK..((chunk + 1) * CHUNK).min(blocks) {
            let start = block * BLOCK;
            let end = len.min(start + BLOCK);
            partials.set(
                block,
                tier.run(ElementBlock {
                    loss,
                    buffers,
                    target,
                    start,
                    end,
                    scale,
                    ahead,
                }),
            );
        }
    });
    Ok(partials.total() / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::isa::Tier;

    /// The squared error.
    #[derive(Clone, Copy)]
    struct Square;

    impl<T: Float> Pointwise<T> for Square {
        type Value = f64;

        #[inline(always)]
        fn at(self, x: T, y: T) -> (f64, T) {
            let d = x - y;
            (d.to_f64() * d.to_f64(), d + d)
        }
    }

    fn check<T: Float>() {
        let sizes: Vec<usize> = if cfg!(miri) {
            vec![0, 1, LANES, LANES + 1, BLOCK + 1]
        } else {
            let large = [BLOCK - 1, BLOCK, BLOCK + 1, 300_001];
            (0..70).chain(large).collect()
        };
        for n in sizes {
            let x: Vec<T> = (0..n).map(|i| T::from_f64((i % 97) as f64 / 7.0)).collect();
            let y: Vec<T> = (0..n).map(|i| T::from_f64((i % 89) as f64 / 9.0)).collect();
            let run = |in_place: bool| {
                let mut gradient = x.clone();
                let input = if in_place {
                    Input::InPlace(&mut gradient)
                } else {
                    Input::Gradient(&x, &mut gradient)
                };
                let value = compute(Square, input, &y, Reduction::Sum, 1.0);
                (value.expect("good arguments"), gradient)
            };
            let expected = isa::with_tier(Tier::Baseline, || run(false)).expect("supported");
            let square = |(x, y): (&T, &T)| (*x - *y).to_f64() * (*x - *y).to_f64();
            let sum: f64 = x.iter().zip(&y).map(square).sum();
            assert!((expected.0 - sum).abs() <= 1e-12 * sum);
            for tier in Tier::supported() {
                for count in if cfg!(miri) { 3..4 } else { 1..4 } {
                    let call = || pool::with_threads(count, || run(count == 3));
                    assert!(
                        isa::with_tier(tier, call).expect("supported") == expected,
                        "{n}"
                    );
                }
            }
            let mut values = vec![T::ZERO; n];
            let each = Reduction::None(&mut values);
            compute(Square, Input::Value(&x), &y, each, 1.0).expect("good arguments");
            for (value, pair) in values.iter().zip(x.iter().zip(&y)) {
                assert_eq!(*value, T::from_f64(square(pair)));
            }
        }
    }

    #[test]
    fn tiers_threads_and_places_give_the_same_bits() {
        check::<f32>();
        check::<f64>();
    }
}
