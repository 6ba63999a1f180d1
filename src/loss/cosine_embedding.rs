//! Cosine embedding: `1 - cos(a, b)` for pairs with target 1, `max(0, cos(a, b) - margin)` for -1.

use super::Target;
use crate::loss::driver::vectorwise::Vectors;
use crate::numeric::float::Float;

/// Pairs with target 1 are turned towards each other, pairs with target -1 apart.
#[derive(Clone, Copy, Debug)]
pub struct CosineEmbedding<'a, T> {
    /// The cosine that is small enough for the target -1.
    pub margin: f64,
    /// One per row. Others than 1 and -1 add nothing, as in PyTorch.
    pub target: Target<'a, T>,
}

/// What PyTorch adds to squared lengths; it has it in f32 for every type.
const EPS: f64 = 1e-12_f32 as f64;

impl<T: Float> Vectors<2, 3> for CosineEmbedding<'_, T> {
    type Total = f64;
    /// Of the other vector, and of each vector itself.
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
