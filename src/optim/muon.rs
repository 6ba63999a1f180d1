//! Muon (Jordan et al., 2024): approximately orthogonalized momentum.

use super::moments::MOMENTUM_BUFFER;
use crate::error::{Error, Result};
use crate::exec::isa::{Kernel, Tier};
use crate::exec::pool::{self, CHUNK};
use crate::numeric::float::Float;
use crate::ops::matmul::{Affine, Operand, multiply, transpose};
use crate::optim::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::reduce::{self, Squares};
use crate::sweep::rule::{Optimizer, TensorRule, Visitor};
use crate::sweep::segment::StepContext;
use crate::sweep::state::StateSpec;

hyper! {
    /// ```text
    /// m = mu m + (1 - mu) g
    /// X = m  or  mu m + (1 - mu) g (Nesterov),  X = X / max(norm(X), eps)
    /// X is transposed here, and back below, if rows > columns
    /// ns_steps times:  G = X X',  X = a X + (b G + c G G) X
    /// p = (1 - lr wd) p - s lr X
    /// ```
    /// s is `sqrt(max(1, rows / columns))`, or `0.2 sqrt(max(rows, columns))` to match the root
    /// mean square of AdamW.
    pub struct Muon {
        /// Learning rate.
        lr: f64, NON_NEGATIVE;
        /// Decoupled weight decay.
        weight_decay: f64, NON_NEGATIVE;
        /// mu.
        momentum: f64, NON_NEGATIVE;
        /// Whether the update is that of Nesterov.
        nesterov: bool, Kind::Flag;
        /// Coefficients a, b and c of the Newton-Schulz iteration.
        ns_coefficients: [f64; 3], Kind::Numbers(&[Range::Finite, Range::Finite, Range::Finite]);
        /// Lower bound of the norm by which X is divided.
        eps: f64, NON_NEGATIVE;
        /// Number of Newton-Schulz iterations.
        ns_steps: u64, Kind::Count(99);
        /// Definition of s: `original` or `match_rms_adamw`.
        adjust_lr_fn: Option<String>, Kind::OptionalWord(&["original", "match_rms_adamw"]);
    }
}

impl Optimizer for Muon {
    fn check_shape(&self, shape: &[usize]) -> Result<()> {
        if shape.len() == 2 {
            return Ok(());
        }
        Err(Error::Value(format!(
            "Muon takes matrices, and params has an array of shape {shape:?}: give biases, \
             embeddings and the like to AdamW"
        )))
    }

    fn rate(&self, _context: StepContext) -> Option<f64> {
        Some(self.lr)
    }

    fn visit<T: Float, V: Visitor<T>>(&self, visitor: V) -> V::Output {
        let matched = self.adjust_lr_fn.as_deref() == Some("match_rms_adamw");
        visitor.tensorwise(|_| Step {
            lr: self.lr,
            keep: T::from_f64(1.0 - self.lr * self.weight_decay),
            mu: T::from_f64(self.momentum),
            muc: T::from_f64(1.0 - self.momentum),
            nesterov: self.nesterov,
            coefficients: self.ns_coefficients.map(T::from_f64),
            eps: self.eps,
            steps: self.ns_steps,
            matched,
        })
    }
}

/// `muc` is 1 - mu.
#[derive(Clone, Copy)]
struct Step<T> {
    lr: f64,
    keep: T,
    mu: T,
    muc: T,
    nesterov: bool,
    coefficients: [T; 3],
    eps: f64,
    steps: u64,
    matched: bool,
}

impl<T: Float> TensorRule<T> for Step<T> {
    fn state(_rank: usize) -> &'static [StateSpec] {
        &[MOMENTUM_BUFFER]
    }

    fn state_shape(_name: &str, shape: &[usize]) -> Vec<usize> {
        shape.to_vec()
    }

    fn update(&self, shape: &[usize], p: &mut [T], g: &[T], state: Vec<&mut [T]>, tier: Tier) {
        let (&[rows, cols], Some(m)) = (shape, state.into_iter().next()) else {
            unreachable!("a matrix with its momentum");
        };
        if p.is_empty() {
            return;
        }
        let n = p.len();
        pool::for_chunks(m, CHUNK, n / 2, |from, m| {
            let g = &g[from..from + m.len()];
            tier.run(Mix {
                m,
                g,
                mu: self.mu,
                muc: self.muc,
            });
        });
        let mut x = m.to_vec();
        if self.nesterov {
            pool::for_chunks(&mut x, CHUNK, n / 2, |from, m| {
                let g = &g[from..from + m.len()];
                tier.run(Mix {
                    m,
                    g,
                    mu: self.mu,
                    muc: self.muc,
                });
            });
        }
        let norm = reduce::measure(&[&x[..]], Squares)[0].sqrt();
        let scale = T::from_f64(1.0 / norm.max(self.eps));
        pool::for_chunks(&mut x, CHUNK, n / 4, |_, x| tier.run(Scale { x, scale }));
        let x = self.orthogonalize(x, [rows, cols], tier);

        let (height, width) = (rows as f64, cols as f64);
        let ratio = if self.matched {
            0.2 * height.max(width).sqrt()
        } else {
            (height / width).max(1.0).sqrt()
        };
        let lr = T::from_f64(self.lr * ratio);
        pool::for_chunks(p, CHUNK, n / 2, |from, p| {
            let x = &x[from..from + p.len()];
            tier.run(Apply {
                p,
                x,
                lr,
                keep: self.keep,
            });
        });
    }
}

impl<T: Float> Step<T> {
    fn orthogonalize(&self, x: Vec<T>, [rows, cols]: [usize; 2], tier: Tier) -> Vec<T> {
        if rows > cols {
            let mut turned = vec![T::ZERO; x.len()];
            transpose(&x, cols, &mut turned);
            let turned = self.orthogonalize(turned, [cols, rows], tier);
            let mut x = x;
            transpose(&turned, rows, &mut x);
            return x;
        }
        let [a, b, c] = self.coefficients;
        let mut x = x;
        let mut next = vec![T::ZERO; x.len()];
        let mut gram = vec![T::ZERO; rows * rows];
        let mut update = vec![T::ZERO; rows * rows];
        for _ in 0..self.steps {
            let turned = Operand::transposed(&x);
            let alone = Affine {
                alpha: T::ONE,
                beta: T::ZERO,
                base: None,
            };
            multiply(&mut gram, [rows, rows, cols], &x, turned, alone, true, tier);
            let squared = Affine {
                alpha: c,
                beta: b,
                base: Some(&gram),
            };
            multiply(
                &mut update,
                [rows; 3],
                &gram,
                Operand::plain(&gram),
                squared,
                true,
                tier,
            );
            let moved = Affine {
                alpha: T::ONE,
                beta: a,
                base: Some(&x),
            };
            multiply(
                &mut next,
                [rows, cols, rows],
                &update,
                Operand::plain(&x),
                moved,
                false,
                tier,
            );
            std::mem::swap(&mut x, &mut next);
        }
        x
    }
}

/// `m = mu m + (1 - mu) g`
struct Mix<'a, T> {
    m: &'a mut [T],
    g: &'a [T],
    mu: T,
    muc: T,
}

impl<T: Float> Kernel for Mix<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.m.len();
        let g = &self.g[..n];
        for i in 0..n {
            self.m[i] = (self.mu * self.m[i] + self.muc * g[i]).flush(T::MIN_POSITIVE);
        }
    }
}

struct Scale<'a, T> {
    x: &'a mut [T],
    scale: T,
}

impl<T: Float> Kernel for Scale<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x = *x * self.scale;
        }
    }
}

/// `p = keep p - lr x`
struct Apply<'a, T> {
    p: &'a mut [T],
    x: &'a [T],
    lr: T,
    keep: T,
}

impl<T: Float> Kernel for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.p.len();
        let x = &self.x[..n];
        for i in 0..n {
            self.p[i] = self.p[i] * self.keep - self.lr * x[i];
        }
    }
}
