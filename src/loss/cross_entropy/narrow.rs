//! Kernel for few classes: a group of rows is transposed into a tile in L1, where lane `r` is row `r`, and
//! every loop runs over rows.

use std::ops::Range;

use super::distribution::{Distribution, Pivot};
use super::wide::{log_of_sum, pivot_gradient};
use super::{Focus, SoftmaxRows};
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

        let mut max = [-T::INFINITY; GROUP];
        let mut pivot = [0; GROUP];
        for j in 0..classes {
            for r in 0..GROUP {
                let larger = x[j][r] > max[r];
                max[r] = if larger { x[j][r] } else { max[r] };
                if D::LARGEST {
                    pivot[r] = if larger { j as i32 } else { pivot[r] };
                }
            }
        }
        let mut extra = [0.0; GROUP];
        for r in 0..n {
            match distribution.pivot(first + r) {
                Pivot::Class(class) => {
                    pivot[r] = class as i32;
                    extra[r] = distribution.extra(first + r);
                }
                Pivot::Largest => {}
                Pivot::Ignored => pivot[r] = IGNORED,
            }
        }

        let (mut others, mut rest, mut dot) =
            ([T::ZERO; GROUP], [T::ZERO; GROUP], [T::ZERO; GROUP]);
        let (mut pivot_e, mut pivot_d, mut pivot_q) =
            ([T::ZERO; GROUP], [T::ZERO; GROUP], [T::ZERO; GROUP]);
        for j in 0..classes {
            for r in 0..GROUP {
                let d = x[j][r] - max[r];
                let e = d.exp_nonpositive();
                let is_pivot = pivot[r] == j as i32;
                others[r] += if is_pivot { T::ZERO } else { e };
                pivot_e[r] = if is_pivot { e } else { pivot_e[r] };
                pivot_d[r] = if is_pivot { d } else { pivot_d[r] };
                x[j][r] = e;
                if D::DENSE {
                    let q = q[j][r];
                    rest[r] += if is_pivot { T::ZERO } else { q };
                    pivot_q[r] = if is_pivot { q } else { pivot_q[r] };
                    // Zero times -inf adds 0.
                    dot[r] += if is_pivot | (q == T::ZERO) {
                        T::ZERO
                    } else {
                        q * d
                    };
                }
            }
        }

        let mut values = [0.0; GROUP];
        let mut factor = [T::ZERO; GROUP];
        let mut pivot_g = [T::ZERO; GROUP];
        for r in 0..GROUP {
            let (others, rest) = (others[r].to_f64(), rest[r].to_f64());
            let e = pivot_e[r].to_f64();
            let q = pivot_q[r].to_f64() + extra[r];
            let mass = rest + q;
            let pivot_term = if q == 0.0 {
                0.0
            } else {
                q * pivot_d[r].to_f64()
            };
            let log = log_of_sum(others, e);
            let [weight, scale] = if F::PLAIN {
                [1.0, scale]
            } else {
                let chances = [e / (others + e), others / (others + e)];
                let [weight, slope] = focus.factors(chances, log - pivot_d[r].to_f64());
                [weight, scale * slope]
            };
            let value = weigh(weight, mass * log - dot[r].to_f64() - pivot_term);
            let counts = (r < n) & (pivot[r] != IGNORED);
            values[r] = if counts { value } else { 0.0 };
            factor[r] = T::from_f64(scale * mass / (others + e));
            pivot_g[r] = T::from_f64(scale * pivot_gradient::<T, D>([others, e], [rest, q]));
        }
        if buffers.has_gradient() {
            let scale = T::from_f64(scale);
            for j in 0..classes {
                for r in 0..GROUP {
                    let g = x[j][r] * factor[r];
                    let g = if D::DENSE { g - scale * q[j][r] } else { g };
                    let g = if pivot[r] == j as i32 { pivot_g[r] } else { g };
                    x[j][r] = if pivot[r] == IGNORED { T::ZERO } else { g };
                }
            }
            buffers.write_transposed(first, n, x);
        }
        values
    }
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
