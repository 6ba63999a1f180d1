//! Distances of two vectors: norms of their difference, with derivative 0 at distance 0.

use crate::loss::driver::vectorwise::Total;
use crate::numeric::float::Float;
use crate::numeric::math::Math;

/// A distance of two vectors, computed from one term per element of their difference.
pub(super) trait Distance: Copy + Send + Sync {
    type Total: Total;
    /// The result for the whole vector that [`slope`](Self::slope) needs.
    type Scale: Copy;
    fn term(self, d: f64) -> f64;
    fn distance(self, total: Self::Total) -> (f64, Self::Scale);
    /// The derivative of the distance by the difference `d` of an element.
    fn slope(self, d: f64, scale: Self::Scale) -> f64;
}

/// 1 / x, and 0 for 0.
#[inline(always)]
pub(super) fn reciprocal(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// p = 1
#[derive(Clone, Copy)]
pub(super) struct Taxicab;

impl Distance for Taxicab {
    type Total = f64;
    type Scale = ();

    #[inline(always)]
    fn term(self, d: f64) -> f64 {
        d.abs()
    }

    #[inline(always)]
    fn distance(self, total: f64) -> (f64, ()) {
        (total, ())
    }

    #[inline(always)]
    fn slope(self, d: f64, (): ()) -> f64 {
        d.sign()
    }
}

/// p = 2
#[derive(Clone, Copy)]
pub(super) struct Euclid;

impl Distance for Euclid {
    type Total = f64;
    type Scale = f64;

    #[inline(always)]
    fn term(self, d: f64) -> f64 {
        d * d
    }

    #[inline(always)]
    fn distance(self, total: f64) -> (f64, f64) {
        let distance = total.sqrt();
        (distance, reciprocal(distance))
    }

    #[inline(always)]
    fn slope(self, d: f64, reciprocal: f64) -> f64 {
        d * reciprocal
    }
}

/// The square of [`Euclid`].
#[derive(Clone, Copy)]
pub(super) struct Squared;

impl Distance for Squared {
    type Total = f64;
    type Scale = ();

    #[inline(always)]
    fn term(self, d: f64) -> f64 {
        d * d
    }

    #[inline(always)]
    fn distance(self, total: f64) -> (f64, ()) {
        (total, ())
    }

    #[inline(always)]
    fn slope(self, d: f64, (): ()) -> f64 {
        d + d
    }
}

/// Any other p.
#[derive(Clone, Copy)]
pub(super) struct Power(pub(super) f64);

/// `x^y` for `x >= 0`.
#[inline(always)]
fn power(x: f64, y: f64) -> f64 {
    Math::exp(y * Math::ln(x))
}

impl Distance for Power {
    type Total = f64;
    type Scale = f64;

    #[inline(always)]
    fn term(self, d: f64) -> f64 {
        power(d.abs(), self.0)
    }

    #[inline(always)]
    fn distance(self, total: f64) -> (f64, f64) {
        let distance = power(total, 1.0 / self.0);
        (distance, reciprocal(distance))
    }

    #[inline(always)]
    fn slope(self, d: f64, reciprocal: f64) -> f64 {
        let slope = d.sign() * power(d.abs() * reciprocal, self.0 - 1.0);
        // For p < 1 the power has a pole at 0, where the derivative is defined as 0.
        if d == 0.0 { 0.0 } else { slope }
    }
}

/// p = infinity: the largest elements, if they are equal, share the derivative.
#[derive(Clone, Copy)]
pub(super) struct Chebyshev;

/// The largest term, and its number of occurrences.
#[derive(Clone, Copy)]
pub(super) struct Largest {
    value: f64,
    count: f64,
}

impl Total for Largest {
    const ZERO: Self = Self {
        value: 0.0,
        count: 0.0,
    };

    #[inline(always)]
    fn add(self, term: f64) -> Self {
        self.join(Self {
            value: term,
            count: 1.0,
        })
    }

    #[inline(always)]
    fn join(self, other: Self) -> Self {
        let mine = if self.value < other.value {
            0.0
        } else {
            self.count
        };
        let theirs = if other.value < self.value {
            0.0
        } else {
            other.count
        };
        Self {
            value: self.value.max_or_nan(other.value),
            count: mine + theirs,
        }
    }
}

impl Distance for Chebyshev {
    type Total = Largest;
    /// The largest term, and the share of each element that is equal to it.
    type Scale = [f64; 2];

    #[inline(always)]
    fn term(self, d: f64) -> f64 {
        d.abs()
    }

    #[inline(always)]
    fn distance(self, total: Largest) -> (f64, [f64; 2]) {
        (total.value, [total.value, 1.0 / total.count])
    }

    #[inline(always)]
    fn slope(self, d: f64, [largest, share]: [f64; 2]) -> f64 {
        if d.abs() == largest {
            d.sign() * share
        } else {
            0.0
        }
    }
}
