//! Contrastive: `(s D^2 + (1 - s) max(0, margin - D)^2) / 2` for the distance `D` of two vectors and
//! `s` = 1 where they belong together.

use super::Target;
use super::distance::reciprocal;
use crate::loss::driver::vectorwise::Vectors;
use crate::numeric::float::Float;

/// Pairs that belong together are drawn near, others pushed out to `margin`.
#[derive(Clone, Copy, Debug)]
pub struct Contrastive<'a, T> {
    /// The distance that is far enough.
    pub margin: f64,
    /// One per row, from 0 to 1.
    pub same: Target<'a, T>,
}

impl<T: Float> Vectors<2, 1> for Contrastive<'_, T> {
    type Total = f64;
    /// The derivative by an element is this times the difference.
    type Slope = f64;

    #[inline(always)]
    fn terms(self, [a, b]: [f64; 2]) -> [f64; 1] {
        [(a - b) * (a - b)]
    }

    #[inline(always)]
    fn value(self, row: usize, [square]: [f64; 1]) -> (f64, f64) {
        let (same, distance) = (self.same.number(row), square.sqrt());
        let gap = (self.margin - distance).max_or_nan(0.0);
        let push = gap * reciprocal(distance);
        (
            0.5 * (same.weigh(square) + (1.0 - same).weigh(gap * gap)),
            same - (1.0 - same) * push,
        )
    }

    #[inline(always)]
    fn derivatives(self, slope: f64, [a, b]: [f64; 2]) -> [f64; 2] {
        let g = slope * (a - b);
        [g, -g]
    }
}
