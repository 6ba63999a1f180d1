//! Kernel for few classes: a group of rows is transposed into a tile in L1, where lane `r` is row
//! `r`, and every loop runs over rows.

use std::ops::Range;

use super::distribution::{Distribution, Pivot};
use super::wide::{excess, pivot_gradient};
use super::{Focus, SoftmaxRows};
use crate::exec::isa;
use crate::exec::scratch::Scratch;
use crate::loss::driver::rowwise::{self, GROUP};
use crate::loss::labels::weigh;
use crate::numeric::math::Math;
use crate::reduce;

#[derive(Clone, Copy)]
pub(super) struct Narrow<'a, T, D, F>(pub(super) SoftmaxRows<'a, T, D, F>);

/// `tile[j][r]` belongs to class `j` of row `r`.
type Tile<T> = [[T; GROUP]];

/// A pivot that is not equal to any class.
const IGNORED: i32 = -1;

/// Rows of which a loop over classes has the largest logits in registers.
const PART: usize = 16;

/// Sums stay in `T` for this many classes, then go to `f64`.
const STEPS: usize = 64;

impl<T: Math, D: Distribution<T>, F: Focus> Narrow<'_, T, D, F> {
    #[inline(always)]
    fn gather(&self, first: usize, n: usize, x: &mut Tile<T>, q: &mut Tile<T>) {
        let classes = self.0.classes;
        self.0.buffers.read_transposed(first, n, x);
        if D::DENSE {
            for j in 0..classes {
                for r in 0..n {
                    q[j][r] = self.0.distribution.at(first + r, j);
                }
            }
        }
    }

    /// The values of up to `GROUP` rows; 0 for lanes from `n` on.
    #[inline(always)]
    fn group(&self, first: usize, n: usize, x: &mut Tile<T>, q: &mut Tile<T>) -> [f64; GROUP] {
        let SoftmaxRows {
            buffers,
            distribution,
            focus,
            classes,
            scale,
            ..
        } = self.0;
        self.gather(first, n, x, q);

        let (mut max, mut largest) = ([T::ZERO; GROUP], [0; GROUP]);
        for at in (0..GROUP).step_by(PART) {
            let (found, place) = largest_of::<T, D>(x, at);
            max[at..at + PART].copy_from_slice(&found);
            largest[at..at + PART].copy_from_slice(&place);
        }
        let (mut pivot, mut extra) = ([IGNORED; GROUP], [0.0; GROUP]);
        let (mut pivot_x, mut pivot_q) = ([T::ZERO; GROUP], [T::ZERO; GROUP]);
        for r in 0..n {
            pivot[r] = match distribution.pivot(first + r) {
                Pivot::Class(class) => {
                    extra[r] = distribution.extra(first + r);
                    class as i32
                }
                Pivot::Largest => largest[r],
                Pivot::Ignored => IGNORED,
            };
            if pivot[r] != IGNORED {
                // Without the pivot, which adds exp(-inf) = 0, every class is summed in the same
                // way.
                let class = pivot[r] as usize;
                pivot_x[r] = std::mem::replace(&mut x[class][r], -T::INFINITY);
                if D::DENSE {
                    pivot_q[r] = std::mem::take(&mut q[class][r]);
                }
            }
        }
        let mut pivot_d = [T::ZERO; GROUP];
        for r in 0..GROUP {
            pivot_d[r] = pivot_x[r] - max[r];
        }
        let pivot_e = T::exp_nonpositive_of(pivot_d);

        let next = (first + GROUP) * classes;
        let mut sums = [[0.0; GROUP]; 3];
        for from in (0..classes).step_by(STEPS) {
            let prefetch = |j: usize| buffers.prefetch(next + (from + j) * GROUP, GROUP);
            let to = classes.min(from + STEPS);
            let found = exponentials::<T, D>(&mut x[from..to], &q[from..to], &max, prefetch);
            for (sum, found) in sums.iter_mut().zip(&found) {
                for i in 0..GROUP {
                    sum[i] += found[i].to_f64();
                }
            }
        }
        let [others, rest, dot] = sums;
        let mut logs = [0.0; GROUP];
        for r in 0..GROUP {
            logs[r] = excess(others[r], pivot_e[r].to_f64());
        }
        logs = f64::ln_1p_nonnegative_of(logs);

        let mut values = [0.0; GROUP];
        let mut factor = [T::ZERO; GROUP];
        let mut pivot_g = [T::ZERO; GROUP];
        for r in 0..GROUP {
            let (others, rest) = (others[r], rest[r]);
            let e = pivot_e[r].to_f64();
            let q = pivot_q[r].to_f64() + extra[r];
            let mass = rest + q;
            let pivot_term = if q == 0.0 {
                0.0
            } else {
                q * pivot_d[r].to_f64()
            };
            let log = logs[r];
            let [weight, scale] = if F::PLAIN {
                [1.0, scale]
            } else {
                let chances = [e / (others + e), others / (others + e)];
                let [weight, slope] = focus.factors(chances, log - pivot_d[r].to_f64());
                [weight, scale * slope]
            };
            let value = weigh(weight, mass * log - dot[r] - pivot_term);
            let counts = (r < n) & (pivot[r] != IGNORED);
            values[r] = if counts { value } else { 0.0 };
            factor[r] = T::from_f64(scale * mass / (others + e));
            pivot_g[r] = T::from_f64(scale * pivot_gradient::<T, D>([others, e], [rest, q]));
        }
        if buffers.has_gradient() {
            let scale = T::from_f64(scale);
            for j in 0..classes {
                isa::one_iteration();
                for r in 0..GROUP {
                    let g = x[j][r] * factor[r];
                    x[j][r] = if D::DENSE { g - scale * q[j][r] } else { g };
                }
            }
            buffers.write_transposed(first, n, x);
            for r in 0..n {
                // SAFETY: this task has the row alone, and the slice is dropped before anything
                // else of the row is read or written.
                let row = unsafe { buffers.gradient((first + r) * classes, classes) };
                match pivot[r] {
                    IGNORED => row.fill(T::ZERO),
                    class => row[class as usize] = pivot_g[r],
                }
            }
        }
        values
    }
}

/// The largest element of each of `PART` rows from `at` and, where pivots are the largest logits,
/// its class.
#[inline(always)]
fn largest_of<T: Math, D: Distribution<T>>(x: &Tile<T>, at: usize) -> ([T; PART], [i32; PART]) {
    let (mut max, mut place) = ([-T::INFINITY; PART], [0; PART]);
    for (j, x) in x.iter().enumerate() {
        let x = part(x, at);
        for i in 0..PART {
            let larger = x[i] > max[i];
            max[i] = if larger { x[i] } else { max[i] };
            if D::LARGEST {
                place[i] = if larger { j as i32 } else { place[i] };
            }
        }
    }
    (max, place)
}

/// Replaces the logits of some classes by their exponentials. Returns the sums of these, of the
/// probabilities, and of the products of probability and logit minus the largest one, per row.
#[inline(always)]
fn exponentials<T: Math, D: Distribution<T>>(
    x: &mut Tile<T>,
    q: &Tile<T>,
    max: &[T; GROUP],
    prefetch: impl Fn(usize),
) -> [[T; GROUP]; 3] {
    let mut sums = [[T::ZERO; GROUP]; 3];
    let (pairs, last) = x.as_chunks_mut::<2>();
    for (k, pair) in pairs.iter_mut().enumerate() {
        isa::one_iteration();
        prefetch(2 * k);
        prefetch(2 * k + 1);
        let mut d = [T::ZERO; 2 * GROUP];
        for i in 0..GROUP {
            d[i] = pair[0][i] - max[i];
            d[GROUP + i] = pair[1][i] - max[i];
        }
        let e = T::exp_nonpositive_of(d);
        let ([d0, d1], [e0, e1]) = (halves(&d), halves(&e));
        *pair = [*e0, *e1];
        add::<T, D>(&mut sums, e0, q, 2 * k, d0);
        add::<T, D>(&mut sums, e1, q, 2 * k + 1, d1);
    }
    if let [x] = last {
        let class = 2 * pairs.len();
        prefetch(class);
        let mut d = [T::ZERO; GROUP];
        for i in 0..GROUP {
            d[i] = x[i] - max[i];
        }
        *x = T::exp_nonpositive_of(d);
        add::<T, D>(&mut sums, x, q, class, &d);
    }
    sums
}

/// The lanes of two classes.
#[inline(always)]
fn halves<T>(lanes: &[T; 2 * GROUP]) -> [&[T; GROUP]; 2] {
    let (halves, _) = lanes.as_chunks::<GROUP>();
    [&halves[0], &halves[1]]
}

/// Adds one class to the sums of [`exponentials`].
#[inline(always)]
fn add<T: Math, D: Distribution<T>>(
    sums: &mut [[T; GROUP]; 3],
    e: &[T; GROUP],
    q: &Tile<T>,
    class: usize,
    d: &[T; GROUP],
) {
    for i in 0..GROUP {
        sums[0][i] += e[i];
    }
    if D::DENSE {
        let q = &q[class];
        for i in 0..GROUP {
            sums[1][i] += q[i];
            // Zero times -inf adds 0.
            let term = q[i] * d[i];
            sums[2][i] += if q[i] == T::ZERO { T::ZERO } else { term };
        }
    }
}

/// A copy of `PART` lanes, which stays in registers. Not by `array::from_fn`, which may be a call,
/// and then doubles the time of the whole kernel.
#[inline(always)]
fn part<T: Copy>(lanes: &[T; GROUP], at: usize) -> [T; PART] {
    let mut piece = [lanes[at]; PART];
    piece.copy_from_slice(&lanes[at..at + PART]);
    piece
}

impl<T: Math, D: Distribution<T>, F: Focus> rowwise::RowKernel for Narrow<'_, T, D, F> {
    #[inline(always)]
    fn sum(self, rows: Range<usize>) -> f64 {
        let mut lanes = [0.0; GROUP];
        let mut scratch = Scratch::<T, 2>::new(self.0.classes * GROUP);
        let [x, q] = scratch.arrays().map(|array| array.as_chunks_mut().0);
        let mut first = rows.start;
        while first < rows.end {
            let n = GROUP.min(rows.end - first);
            let values = self.group(first, n, x, q);
            self.0.buffers.write_values(first, n, &values);
            for r in 0..GROUP {
                lanes[r] += values[r];
            }
            first += GROUP;
        }
        reduce::sum(lanes)
    }
}
