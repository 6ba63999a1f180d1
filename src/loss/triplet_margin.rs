//! Triplet margin loss: `max(0, margin + d(a, p) - d(a, n))` for the distance `d` of a norm. With
//! `swap` the smaller of `d(a, n)` and `d(p, n)` takes the place of `d(a, n)`.

use crate::error::{Error, Result};
use crate::hyper::{Kind, NON_NEGATIVE, Range, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::distance::{Chebyshev, Distance, Euclid, Power, Squared, Taxicab};
use crate::loss::driver::vectorwise::Vectors;
use crate::loss::signature::{InputShape, Role, Signature};
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// Pulls an anchor towards its positive until it is nearer than the negative by `margin`.
    #[derive(Copy)]
    pub struct TripletMargin {
        /// The difference of the distances from which on the loss is 0.
        margin: f64, Kind::Number(Range::Positive);
        /// The exponent of the norm; infinity is allowed.
        p: f64, Kind::Number(Range::Unbounded);
        /// Added to every difference, except where distances are squared.
        eps: f64, NON_NEGATIVE;
        /// Whether the distance of positive and negative counts where it is the smaller one.
        swap: bool, Kind::Flag;
        /// Whether distances are squared, for `p = 2` only.
        squared: bool, Kind::Flag;
    }
    check |it| it.check_squared()
}

impl TripletMargin {
    fn check_squared(&self) -> Result<()> {
        let p = self.p;
        if self.squared && p != 2.0 {
            return Err(Error::Value(format!(
                "squared distances are those of p = 2, got p = {p}"
            )));
        }
        Ok(())
    }

    fn with<T: Float, D: Distance>(self, distance: D, call: Call<'_, T>) -> Result<f64> {
        let Self { margin, eps, .. } = self;
        if self.swap {
            call.vectorwise(Triplet::<D, 3> {
                distance,
                margin,
                eps,
            })
        } else {
            call.vectorwise(Triplet::<D, 2> {
                distance,
                margin,
                eps,
            })
        }
    }
}

impl Loss for TripletMargin {
    const SIGNATURE: Signature = Signature {
        shape: InputShape::Vectors,
        arrays: &[
            ("anchor", Role::Input),
            ("positive", Role::Input),
            ("negative", Role::Input),
        ],
        ..Signature::ELEMENTWISE
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        match self.p {
            _ if self.squared => Self { eps: 0.0, ..*self }.with(Squared, call),
            1.0 => self.with(Taxicab, call),
            2.0 => self.with(Euclid, call),
            f64::INFINITY => self.with(Chebyshev, call),
            p => self.with(Power(p), call),
        }
    }
}

/// A triplet with `K = 2` distances, or with that from the positive to the negative as the third.
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
        // The smaller distance of the negative counts, and half of each where they are equal.
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
