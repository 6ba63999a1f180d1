//! Adafactor (Shazeer and Stern, 2018), as implemented by PyTorch.

use std::sync::OnceLock;

use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool::{self, CHUNK};
use crate::numeric::float::Float;
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::reduce::{self, Partials, Squares, VECTOR};
use crate::sweep::rule::{Optimizer, TensorRule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// b = t^beta2_decay,  a = max(eps2, rms(p)) min(lr, 1 / sqrt(t))
    /// r += b (mean of g^2 over columns - r),  c += b (mean of g^2 over rows - c)
    /// v = r c / max(mean(r), eps1)              or, for vectors, v += b (g^2 - v)
    /// u = g / sqrt(max(v, eps1^2))
    /// p = (1 - lr wd) p - a u / max(1, rms(u) / d)
    /// ```
    /// An array with more than two dimensions is treated as a batch of matrices.
    pub struct Adafactor {
        /// Upper bound of the relative step size.
        lr: f64, NON_NEGATIVE;
        /// Exponent of t in the decay rate of the averages of g^2.
        beta2_decay: f64, Kind::Number(Range::NonPositive);
        /// eps1, by default the machine epsilon of the type, and eps2.
        eps: (Option<f64>, f64), Kind::OptionalFirst([Range::NonNegative, Range::NonNegative]);
        /// Bound of the root mean square of u.
        d: f64, Kind::Number(Range::Positive);
        /// Decoupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
    }
}

const ROW_VAR: StateSpec = StateSpec::other("row_var").non_negative();
const COL_VAR: StateSpec = StateSpec::other("col_var").non_negative();
const VARIANCE: StateSpec = StateSpec::other("variance").non_negative();

impl Optimizer for Adafactor {
    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let (eps1, eps2) = self.eps;
        visitor.tensorwise(|context| {
            let t = context.step as f64;
            Step {
                b: t.powf(self.beta2_decay),
                lr: self.lr.min(1.0 / t.sqrt()),
                eps1: eps1.unwrap_or(T::EPSILON.to_f64()),
                eps2,
                d: self.d,
                keep: T::from_f64(1.0 - self.lr * self.weight_decay),
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Step<T> {
    b: f64,
    lr: f64,
    eps1: f64,
    eps2: f64,
    d: f64,
    keep: T,
}

impl<T: Float> TensorRule<T> for Step<T> {
    fn state(rank: usize) -> &'static [StateSpec] {
        if rank > 1 {
            &[ROW_VAR, COL_VAR]
        } else {
            &[VARIANCE]
        }
    }

    fn state_shape(name: &str, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        let rank = shape.len();
        match name {
            "row_var" => shape[rank - 1] = 1,
            "col_var" => shape[rank - 2] = 1,
            _ => {}
        }
        shape
    }

    fn update(&self, shape: &[usize], p: &mut [T], g: &[T], state: Vec<&mut [T]>, tier: Tier) {
        let n = p.len();
        if n == 0 {
            return;
        }
        let rms = (reduce::measure(&[&*p], Squares)[0] / n as f64).sqrt();
        let mut state = state.into_iter();
        let (first, second) = (state.next().expect("one or two arrays"), state.next());
        let variance = match (shape, second) {
            (&[.., rows, cols], Some(columns)) => {
                self.factors([rows, cols], g, first, columns, tier);
                Variance::product(first, columns, [rows, cols], T::from_f64(self.eps1))
            }
            _ => {
                self.average(g, first, tier);
                Variance::plain(first)
            }
        };
        let floor = T::from_f64(self.eps1 * self.eps1);
        let blocks = variance.blocks(n);
        let partials = Partials::new(blocks.len());
        pool::run(blocks.len(), n, |index| {
            let (from, to) = blocks[index];
            let sum = variance
                .rows(from, to, g)
                .map(|(g, v)| tier.run(Norm { g, v, floor }));
            partials.set(index, sum.sum());
        });
        let u = (partials.total() / n as f64).sqrt();
        let lr = T::from_f64(self.eps2.max(rms) * self.lr / (u / self.d).max(1.0));
        let keep = self.keep;
        pool::for_parts(p, &blocks, n, |from, mut p| {
            for (g, v) in variance.rows(from, from + p.len(), g) {
                let (row, rest) = p.split_at_mut(g.len());
                p = rest;
                tier.run(Apply {
                    p: row,
                    g,
                    v,
                    floor,
                    lr,
                    keep,
                });
            }
        });
    }
}

impl<T: Float> Step<T> {
    /// Updates the averages of g^2 over the rows and the columns of every matrix.
    fn factors(
        &self,
        [rows, cols]: [usize; 2],
        g: &[T],
        row_var: &mut [T],
        col_var: &mut [T],
        tier: Tier,
    ) {
        let b = T::from_f64(self.b);
        let size = rows * cols;
        for (index, g) in g.chunks(size).enumerate() {
            // Each block of rows has its own column sums, so the number of blocks is at most 64.
            let height = CHUNK.div_ceil(cols).max(rows.div_ceil(64));
            let sums: Vec<OnceLock<[Vec<f64>; 2]>> = (0..rows.div_ceil(height))
                .map(|_| OnceLock::new())
                .collect();
            pool::run(sums.len(), size, |block| {
                let g = &g[block * height * cols..size.min((block + 1) * height * cols)];
                let mut of = [vec![0.0; g.len() / cols], vec![0.0; cols]];
                let [of_rows, of_cols] = &mut of;
                tier.run(Sums {
                    g,
                    of_rows,
                    of_cols,
                });
                sums[block].get_or_init(|| of);
            });
            let mut of_cols = vec![0.0; cols];
            let mut row = index * rows;
            for block in &sums {
                let [of_rows, block_cols] = block.get().expect("every block has run");
                for sum in of_rows {
                    let mean = T::from_f64(sum / cols as f64);
                    row_var[row] = row_var[row] + b * (mean - row_var[row]);
                    row += 1;
                }
                for (sum, x) in of_cols.iter_mut().zip(block_cols) {
                    *sum += x;
                }
            }
            for (c, sum) in col_var[index * cols..].iter_mut().zip(of_cols) {
                let mean = T::from_f64(sum / rows as f64);
                *c = *c + b * (mean - *c);
            }
        }
    }

    /// Updates the average of g^2 of a vector.
    fn average(&self, g: &[T], variance: &mut [T], tier: Tier) {
        let b = T::from_f64(self.b);
        pool::for_chunks(variance, CHUNK, g.len() / 2, |from, v| {
            let g = &g[from..from + v.len()];
            tier.run(Average { v, g, b });
        });
    }
}

/// The estimated average of g^2 for every element.
struct Variance<'a, T> {
    /// The column averages of every matrix, or the averages of a vector.
    columns: &'a [T],
    cols: usize,
    rows: usize,
    /// The factor of each row, by which the column averages are multiplied.
    factors: Vec<T>,
}

impl<'a, T: Float> Variance<'a, T> {
    fn plain(variance: &'a [T]) -> Self {
        Self {
            columns: variance,
            cols: variance.len(),
            rows: 1,
            factors: vec![T::ONE],
        }
    }

    fn product(row_var: &[T], col_var: &'a [T], [rows, cols]: [usize; 2], least: T) -> Self {
        let mut factors = Vec::with_capacity(row_var.len());
        for row_var in row_var.chunks(rows) {
            let sum: f64 = row_var.iter().map(|x| x.to_f64()).sum();
            let mean = T::from_f64(sum / rows as f64);
            let mean = if mean < least { least } else { mean };
            factors.extend(row_var.iter().map(|&x| x / mean));
        }
        Self {
            columns: col_var,
            cols,
            rows,
            factors,
        }
    }

    /// Divides `0..n` into blocks of whole rows, or a single row into blocks.
    fn blocks(&self, n: usize) -> Vec<(usize, usize)> {
        let size = if self.factors.len() == 1 {
            CHUNK
        } else {
            CHUNK.div_ceil(self.cols) * self.cols
        };
        (0..n)
            .step_by(size)
            .map(|from| (from, n.min(from + size)))
            .collect()
    }

    /// Iterates over the gradients of `from..to`, row by row, each with its variance.
    fn rows<'b>(
        &'b self,
        from: usize,
        to: usize,
        g: &'b [T],
    ) -> impl Iterator<Item = (&'b [T], Row<'b, T>)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let (row, col) = (at / self.cols, at % self.cols);
            let n = (self.cols - col).min(to - at);
            let start = row / self.rows * self.cols + col;
            let found = (n > 0).then(|| {
                let columns = &self.columns[start..start + n];
                let factor = self.factors[row];
                (&g[at..at + n], Row { factor, columns })
            });
            at += n;
            found
        })
    }
}

#[derive(Clone, Copy)]
struct Row<'a, T> {
    factor: T,
    columns: &'a [T],
}

impl<T: Float> Row<'_, T> {
    #[inline(always)]
    fn direction(&self, i: usize, g: T, floor: T) -> T {
        let v = self.factor * self.columns[i];
        g / (if v < floor { floor } else { v }).sqrt()
    }
}

struct Sums<'a, T> {
    g: &'a [T],
    of_rows: &'a mut [f64],
    of_cols: &'a mut [f64],
}

impl<T: Float> Kernel for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let cols = self.of_cols.len();
        for row in 0..self.of_rows.len() {
            let g = &self.g[row * cols..][..cols];
            let mut lanes = [0.0; VECTOR];
            let whole = cols - cols % VECTOR;
            for j in (0..whole).step_by(VECTOR) {
                let square: [f64; VECTOR] = std::array::from_fn(|i| {
                    let x = g[j + i].to_f64();
                    x * x
                });
                for i in 0..VECTOR {
                    self.of_cols[j + i] += square[i];
                }
                lanes = std::array::from_fn(|i| lanes[i] + square[i]);
            }
            for j in whole..cols {
                let x = g[j].to_f64();
                self.of_cols[j] += x * x;
                lanes[j - whole] += x * x;
            }
            self.of_rows[row] = reduce::tree(&lanes);
        }
    }
}

struct Average<'a, T> {
    v: &'a mut [T],
    g: &'a [T],
    b: T,
}

impl<T: Float> Kernel for Average<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.v.len();
        let g = &self.g[..n];
        for i in 0..n {
            self.v[i] = self.v[i] + self.b * (g[i] * g[i] - self.v[i]);
        }
    }
}

struct Norm<'a, T> {
    g: &'a [T],
    v: Row<'a, T>,
    floor: T,
}

impl<T: Float> Kernel for Norm<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let n = self.g.len();
        assert_eq!(self.v.columns.len(), n);
        let square = |i: usize| {
            let u = self.v.direction(i, self.g[i], self.floor).to_f64();
            u * u
        };
        let mut lanes = [0.0; VECTOR];
        let whole = n - n % VECTOR;
        for j in (0..whole).step_by(VECTOR) {
            let squares: [f64; VECTOR] = std::array::from_fn(|i| square(j + i));
            lanes = std::array::from_fn(|i| lanes[i] + squares[i]);
        }
        for j in whole..n {
            lanes[j - whole] += square(j);
        }
        reduce::tree(&lanes)
    }
}

struct Apply<'a, T> {
    p: &'a mut [T],
    g: &'a [T],
    v: Row<'a, T>,
    floor: T,
    lr: T,
    keep: T,
}

impl<T: Float> Kernel for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.p.len();
        let g = &self.g[..n];
        assert_eq!(self.v.columns.len(), n);
        for i in 0..n {
            let u = self.v.direction(i, g[i], self.floor);
            self.p[i] = self.p[i] * self.keep - self.lr * u;
        }
    }
}
