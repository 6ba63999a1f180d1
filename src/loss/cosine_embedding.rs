//! Cosine embedding loss: `1 - cos(a, b)` for pairs with target 1, `max(0, cos(a, b) - margin)` for
//! -1.

use crate::error::Result;
use crate::hyper::{Kind, Range, hyper};
use crate::loss::call::{Call, Loss};
use crate::loss::driver::vectorwise::Vectors;
use crate::loss::labels::Target;
use crate::loss::signature::{InputShape, Role, Signature};
use crate::numeric::float::Float;
use crate::numeric::math::Math;

hyper! {
    /// Turns pairs with target 1 towards each other, and pairs with target -1 apart.
    #[derive(Copy)]
    pub struct CosineEmbedding {
        /// The cosine up to which a pair with target -1 adds nothing.
        margin: f64, Kind::Number(Range::Cosine);
    }
}

impl Loss for CosineEmbedding {
    const SIGNATURE: Signature = Signature {
        shape: InputShape::Vectors,
        arrays: &[
            ("x1", Role::Input),
            ("x2", Role::Input),
            ("target", Role::RowTarget),
        ],
        ..Signature::ELEMENTWISE
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let (margin, target) = (self.margin, call.row_target()?);
        call.vectorwise(Pairs { margin, target })
    }
}

#[derive(Clone, Copy)]
struct Pairs<'a, T> {
    margin: f64,
    /// One number per row. A pair with another target than 1 or -1 adds nothing, as in PyTorch.
    target: Target<'a, T>,
}

/// Added to squared lengths as in PyTorch, where it is a float32 for every type.
const EPS: f64 = 1e-12_f32 as f64;

impl<T: Float> Vectors<2, 3> for Pairs<'_, T> {
    type Total = f64;
    /// The factor of the other vector, and that of each vector itself.
    type Slope = (f64, [f64; 2]);

    #[inline(always)]
    fn terms(self, [a, b]: [f64; 2]) -> [f64; 3] {
        [a * b, a * a, b * b]
    }

    #[inline(always)]
    fn value(self, row: usize, [dot, a, b]: [f64; 3]) -> (f64, Self::Slope) {
        let (a, b) = (a + EPS, b + EPS);
        let lengths = (a * b).sqrt();
        let cos = dot / lengths;
        let target = self.target.number(row);
        let gap = (cos - self.margin).max_or_nan(0.0);
        let (value, slope) = if target == 1.0 {
            (1.0 - cos, -1.0)
        } else if target == -1.0 {
            (gap, gap.sign())
        } else {
            (if target.is_nan() { target } else { 0.0 }, 0.0)
        };
        let own = -slope * cos;
        (value, (slope / lengths, [own / a, own / b]))
    }

    #[inline(always)]
    fn derivatives(self, (other, own): Self::Slope, [a, b]: [f64; 2]) -> [f64; 2] {
        [other * b + own[0] * a, other * a + own[1] * b]
    }
}
