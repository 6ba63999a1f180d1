//! Kernel for many classes: one row at a time, which stays in L1 from its maximum to its gradient.

use std::ops::Range;

use super::distribution::{Distribution, Pivot};
use super::{Focus, SoftmaxRows};
use crate::loss::driver::rowwise;
use crate::loss::labels::weigh;
use crate::numeric::math::Math;
use crate::reduce;

/// 64 lanes of `f32` fill four AVX-512 registers.
pub(super) const LANES: usize = 64;

/// SoftmaxSums stay in `T` for this many steps of a lane, then go to `f64`.
const STEPS: usize = 16;

#[derive(Clone, Copy)]
pub(super) struct Wide<'a, T, D, F>(pub(super) SoftmaxRows<'a, T, D, F>);

/// A row and what the exponential pass needs of it.
struct Row<T> {
    index: usize,
    start: usize,
    max: T,
    pivot: usize,
}

/// The sums of the exponential pass, in `T` per lane and then in `f64`.
struct SoftmaxSums<T> {
    /// `exp(x_j - max)`
    exp: [T; LANES],
    /// `q_j`
    q: [T; LANES],
    /// `q_j (x_j - max)`
    dot: [T; LANES],
}

impl<T: Math> SoftmaxSums<T> {
    #[inline(always)]
    fn zero() -> Self {
        Self {
            exp: [T::ZERO; LANES],
            q: [T::ZERO; LANES],
            dot: [T::ZERO; LANES],
        }
    }
}

/// Lanes that are kept, as the start of a window of [`Mask::TABLE`]; the others become 0. If lanes
/// are compared with an index instead, LLVM stores only the zeros, by masked stores, which take 20
/// times as long as others on Zen 3.
#[derive(Clone, Copy)]
struct Mask(usize);

impl Mask {
    /// Zeros, ones, one zero, ones.
    const TABLE: [i32; 4 * LANES] = {
        let mut table = [-1; 4 * LANES];
        let mut i = 0;
        while i < LANES {
            table[i] = 0;
            i += 1;
        }
        table[3 * LANES - 1] = 0;
        table
    };

    /// Keeps all lanes but `place`.
    #[inline(always)]
    fn all_but(place: usize) -> Self {
        Self(3 * LANES - 1 - place)
    }

    /// Keeps the lanes from `first <= LANES` on.
    #[inline(always)]
    fn from(first: usize) -> Self {
        Self(LANES - first)
    }

    #[inline(always)]
    fn of<T: Math>(self, lanes: &[T; LANES]) -> [T; LANES] {
        let window = &Self::TABLE[self.0..self.0 + LANES];
        let mut kept = [T::ZERO; LANES];
        for i in 0..LANES {
            kept[i] = lanes[i].mask(window[i]);
        }
        kept
    }
}

#[inline(always)]
fn widen<T: Math>(wide: &mut [f64; LANES], lanes: &[T; LANES]) {
    for i in 0..LANES {
        wide[i] += lanes[i].to_f64();
    }
}

impl<T: Math, D: Distribution<T>, F: Focus> Wide<'_, T, D, F> {
    #[inline(always)]
    fn largest(&self, start: usize) -> T {
        let mut lanes = [-T::INFINITY; LANES];
        for j in self.pieces() {
            let x: [T; LANES] = self.0.buffers.read(start + j, LANES, T::ZERO);
            for i in 0..LANES {
                // A NaN is ignored here; the exponential pass carries it into the sums.
                lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
            }
        }
        reduce::halve(lanes, |a, b| if b > a { b } else { a })
    }

    /// The starts of pieces that cover a row. The last one overlaps the one before, so that all
    /// pieces have the same size: copies of constant size stay in registers.
    #[inline(always)]
    fn pieces(&self) -> impl Iterator<Item = usize> {
        let last = self.0.classes - LANES;
        (0..self.0.classes).step_by(LANES).map(move |j| j.min(last))
    }

    /// The first class with this logit; 0 if there is none, in a row of NaN.
    #[inline(always)]
    fn find(&self, start: usize, max: T) -> usize {
        for j in self.pieces() {
            let x: [T; LANES] = self.0.buffers.read(start + j, LANES, T::ZERO);
            let mut found = false;
            for i in 0..LANES {
                found |= x[i] == max;
            }
            if found {
                for i in 0..LANES {
                    if x[i] == max {
                        return j + i;
                    }
                }
            }
        }
        0
    }

    /// The exponential pass over the classes from `j`, whose logits are `x`. The pivot and the
    /// first `skip` classes are left out of every sum.
    #[inline(always)]
    fn exponentials(
        &self,
        row: &Row<T>,
        j: usize,
        x: &[T; LANES],
        skip: usize,
        sums: &mut SoftmaxSums<T>,
    ) {
        let mut e = [T::ZERO; LANES];
        for i in 0..LANES {
            e[i] = x[i] - row.max;
        }
        e = T::exp_nonpositive_of(e);
        let mut q = [T::ZERO; LANES];
        if D::DENSE {
            q = self.0.distribution.piece(row.index, j, LANES);
        }
        let place = row.pivot.wrapping_sub(j);
        if place < LANES {
            let others = Mask::all_but(place);
            e = others.of(&e);
            q = others.of(&q);
        }
        self.0.buffers.write(row.start + j, LANES, &e);
        if skip > 0 {
            let counted = Mask::from(skip);
            e = counted.of(&e);
            q = counted.of(&q);
        }
        for i in 0..LANES {
            sums.exp[i] += e[i];
        }
        if D::DENSE {
            for i in 0..LANES {
                let term = q[i] * (x[i] - row.max);
                sums.q[i] += q[i];
                // Zero times -inf adds 0.
                sums.dot[i] += if q[i] == T::ZERO { T::ZERO } else { term };
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> f64 {
        let SoftmaxRows {
            buffers,
            distribution,
            focus,
            classes,
            scale,
            ..
        } = self.0;
        let start = row * classes;
        let pivot = distribution.pivot(row);
        if pivot == Pivot::Ignored {
            // SAFETY: this task has the row alone, and the slice is dropped before anything else of
            // the row is read or written.
            unsafe { buffers.gradient(start, classes) }.fill(T::ZERO);
            return 0.0;
        }
        let max = self.largest(start);
        let pivot = match pivot {
            Pivot::Class(class) => class,
            _ => self.find(start, max),
        };
        // Read before exponentials overwrite them.
        let pivot_d = buffers.read_one(start + pivot) - max;
        let last: [T; LANES] = buffers.read(start + classes - LANES, LANES, T::ZERO);

        let (mut exp, mut q, mut dot) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let this = Row {
            index: row,
            start,
            max,
            pivot,
        };
        let whole = classes - classes % LANES;
        let mut j = 0;
        while j < classes {
            let mut sums = SoftmaxSums::zero();
            let end = whole.min(j + LANES * STEPS);
            while j < end {
                let x = buffers.read(start + j, LANES, T::ZERO);
                // Prefetching the next row is a tenth faster from memory (8192 x 1000, one thread,
                // Zen 5).
                buffers.prefetch(start + classes + j, LANES);
                self.exponentials(&this, j, &x, 0, &mut sums);
                j += LANES;
            }
            if j == whole && j < classes {
                // The first classes of this piece are written a second time, with the same bits.
                let first = classes - LANES;
                self.exponentials(&this, first, &last, j - first, &mut sums);
                j = classes;
            }
            widen(&mut exp, &sums.exp);
            if D::DENSE {
                widen(&mut q, &sums.q);
                widen(&mut dot, &sums.dot);
            }
        }
        let (others, rest) = (reduce::sum(exp), reduce::sum(q));
        let pivot_q = distribution.at(row, pivot).to_f64() + distribution.extra(row);
        let pivot_e = pivot_d.exp_nonpositive().to_f64();
        let (total, mass) = (others + pivot_e, rest + pivot_q);
        let log = excess(others, pivot_e).ln_1p_nonnegative();
        let [factor, scale] = if F::PLAIN {
            [1.0, scale]
        } else {
            let chances = [pivot_e / total, others / total];
            let minus_ln_p = log - pivot_d.to_f64();
            let [factor, slope] = focus.factors(chances, minus_ln_p);
            [factor, scale * slope]
        };

        if buffers.has_gradient() {
            let share = T::from_f64(scale * mass / total);
            // SAFETY: this task has the row alone, and `gradient` is dropped before anything else
            // of the row is read or written.
            let gradient = unsafe { buffers.gradient(start, classes) };
            if D::DENSE {
                let scale = T::from_f64(scale);
                let (pieces, tail) = gradient.as_chunks_mut::<LANES>();
                let whole = pieces.len() * LANES;
                for (k, g) in pieces.iter_mut().enumerate() {
                    let q: [T; LANES] = distribution.piece(row, k * LANES, LANES);
                    for i in 0..LANES {
                        g[i] = g[i] * share - scale * q[i];
                    }
                }
                let q: [T; LANES] = distribution.piece(row, whole, tail.len());
                for (g, &q) in tail.iter_mut().zip(&q) {
                    *g = *g * share - scale * q;
                }
            } else {
                for g in gradient.iter_mut() {
                    *g = *g * share;
                }
            }
            gradient[pivot] =
                T::from_f64(scale * pivot_gradient::<T, D>([others, pivot_e], [rest, pivot_q]));
        }

        let pivot_d = pivot_d.to_f64();
        let pivot_term = if pivot_q == 0.0 {
            0.0
        } else {
            pivot_q * pivot_d
        };
        weigh(factor, mass * log - reduce::sum(dot) - pivot_term)
    }
}

/// The sum of the exponentials of a row minus 1, at least 0. `ln_1p_nonnegative` of it is the
/// logarithm of the sum of the exponentials of the logits, minus the largest logit.
#[inline(always)]
pub(super) fn excess(others: f64, pivot: f64) -> f64 {
    // One of the two has the exponential of 0, so nothing is lost.
    others + (pivot - 1.0)
}

/// The derivative by the pivot's logit, from `[others, pivot]` of the exponentials and of `q`.
#[inline(always)]
pub(super) fn pivot_gradient<T: Math, D: Distribution<T>>(exp: [f64; 2], q: [f64; 2]) -> f64 {
    let ([others, pivot], [rest, pivot_q]) = (exp, q);
    let (total, mass) = (others + pivot, rest + pivot_q);
    // The largest probability may be small; then the direct difference is the accurate form.
    let direct = mass * (pivot / total) - pivot_q;
    let by_others = rest - mass * (others / total);
    if D::LARGEST && others > pivot {
        direct
    } else {
        by_others
    }
}

impl<T: Math, D: Distribution<T>, F: Focus> rowwise::RowKernel for Wide<'_, T, D, F> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut sum = 0.0;
        for row in rows {
            let value = self.row(row);
            self.0.buffers.write_values(row, 1, &[value]);
            sum += value;
        }
        sum
    }
}
