//! Triplet margin: `max(0, margin + d(a, p) - d(a, n))` for the distance `d` of a norm; with `swap`
//! the lesser of `d(a, n)` and `d(p, n)`.

use super::distance::{Chebyshev, Distance, Euclid, Power, Squared, Taxicab};
use super::{Input, Reduction};
use crate::error::Result;
use crate::loss::driver::vectorwise::{self, Vectors};
use crate::numeric::float::Float;

/// An anchor nearer to its positive than to its negative, by `margin`.
#[derive(Clone, Copy, Debug)]
pub struct TripletMargin {
    /// By how much, > 0.
    pub margin: f64,
    /// Of the norm, > 0, infinity included.
    pub p: f64,
    /// Added to every difference. Squared distances go without.
    pub eps: f64,
    /// Whether the negative may be nearer to the positive than to the anchor.
    pub swap: bool,
    /// Whether distances are squared; for p = 2 alone.
    pub squared: bool,
}

/// With K = 2 distances, or with that from the positive to the negative as the third.
#[derive(Clone, Copy)]
struct Triplet<D, const K: usize> {
    distance: D,
    margin: f64,
    eps: f64,
}

impl<D: Distance, const K: usize> Triplet<D, K> {
    #[inline(always)]
    fn differences(&self, [a, p, n]: [f64; 3]) -> [f64; 3] {
        [a - p + self.eps, a - n + self.eps, p - n + self.eps]
    }
}

impl<D: Distance, const K: usize> Vectors<3, K> for Triplet<D, K> {
    type Total = D::Total;
    /// The signed share of each distance in the value, and its scale.
    type Slope = [(f64, D::Scale); K];

    #[inline(always)]
    fn terms(self, x: [f64; 3]) -> [f64; K] {
        let differences = self.differences(x);
        let mut terms = [0.0; K];
        for k in 0..K {
            terms[k] = self.distance.term(differences[k]);
        }
        terms
    }

    #[inline(always)]
    fn value(self, _row: usize, totals: [D::Total; K]) -> (f64, Self::Slope) {
        let found = totals.map(|total| self.distance.distance(total));
        let (positive, negative) = (found[0].0, found[1].0);
        let other = found[K - 1].0;
        let nearest = -(-negative).max_or_nan(-other);
        let gap = (self.margin + positive - nearest).max_or_nan(0.0);
        let slope = gap.sign();
        // Of two ways to the negative the shorter counts, and half of each where they are equal.
        let own = match negative.partial_cmp(&other) {
            _ if K == 2 => 1.0,
            Some(std::cmp::Ordering::Greater) => 0.0,
            Some(std::cmp::Ordering::Equal) => 0.5,
            _ => 1.0,
        };
        let shares = [slope, -slope * own, -slope * (1.0 - own)];
        let mut slopes = found;
        for k in 0..K {
            slopes[k].0 = shares[k];
        }
        (gap, slopes)
    }

    #[inline(always)]
    fn derivatives(self, slopes: Self::Slope, x: [f64; 3]) -> [f64; 3] {
        let differences = self.differences(x);
        let mut by = [0.0; 3];
        for k in 0..K {
            let (share, scale) = slopes[k];
            by[k] = share * self.distance.slope(differences[k], scale);
        }
        [by[0] + by[1], by[2] - by[0], -by[1] - by[2]]
    }
}

impl TripletMargin {
    /// The value under `reduction`, and the gradients by anchor, positive and negative times
    /// `loss_scale`.
    ///
    /// # Errors
    /// Lengths differ.
    pub fn compute<T: Float>(
        self,
        inputs: [Input<'_, T>; 3],
        shape: [usize; 2],
        reduction: Reduction<'_, T>,
        loss_scale: f64,
    ) -> Result<f64> {
        let rest = (inputs, shape, reduction, loss_scale);
        match self.p {
            _ if self.squared => Self { eps: 0.0, ..self }.with(Squared, rest),
            1.0 => self.with(Taxicab, rest),
            2.0 => self.with(Euclid, rest),
            f64::INFINITY => self.with(Chebyshev, rest),
            p => self.with(Power(p), rest),
        }
    }

    fn with<T: Float, D: Distance>(
        self,
        distance: D,
        (inputs, shape, reduction, loss_scale): (
            [Input<'_, T>; 3],
            [usize; 2],
            Reduction<'_, T>,
            f64,
        ),
    ) -> Result<f64> {
        let Self { margin, eps, .. } = self;
        if self.swap {
            let loss = Triplet::<D, 3> {
                distance,
                margin,
                eps,
            };
            vectorwise::compute(loss, inputs, shape, reduction, loss_scale)
        } else {
            let loss = Triplet::<D, 2> {
                distance,
                margin,
                eps,
            };
            vectorwise::compute(loss, inputs, shape, reduction, loss_scale)
        }
    }
}
