//! Contrastive loss: `(s D^2 + (1 - s) max(0, margin - D)^2) / 2` for the distance `D` of two
//! vectors, with `s = 1` for a pair that belongs together.

use crate::error::Result;
use crate::hyper::{NON_NEGATIVE, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::distance::reciprocal;
use crate::loss::driver::vectorwise::Vectors;
use crate::loss::labels::Target;
use crate::loss::signature::{InputShape, Role, Signature};
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// Pulls pairs that belong together towards each other, and pushes others apart.
    #[derive(Copy)]
    pub struct Contrastive {
        /// The distance from which on a pair of the second kind adds nothing.
        margin: f64, NON_NEGATIVE;
    }
}

impl Loss for Contrastive {
    const SIGNATURE: Signature = Signature {
        shape: InputShape::Vectors,
        arrays: &[
            ("x1", Role::Input),
            ("x2", Role::Input),
            ("same", Role::RowTarget),
        ],
        ..Signature::ELEMENTWISE
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let (margin, same) = (self.margin, call.row_target()?);
        call.vectorwise(Pairs { margin, same })
    }
}

#[derive(Clone, Copy)]
struct Pairs<'a, T> {
    margin: f64,
    /// One number from 0 to 1 per row.
    same: Target<'a, T>,
}

impl<T: Float> Vectors<2, 1> for Pairs<'_, T> {
    type Total = f64;
    /// The derivative by an element is this number times the difference of the elements.
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
