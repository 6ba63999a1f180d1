//! What is done to a gradient before its rule sees it.

use crate::factor::Factor;
use crate::float::Float;
use crate::isa::{Kernel, Tier};

/// Elements prepared at a time: 4 KiB of `f32`, which leaves room for the rule's arrays in L1.
pub(crate) const STAGE: usize = 1024;

/// `coefficient * clamp(scale * g, clip_value) + weight_decay * p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prepare {
    /// Unscaling, negation where the objective is maximized.
    pub scale: Factor,
    /// The bound of clipping by value; infinite for none.
    pub clip_value: f64,
    /// The coefficient of clipping by norm.
    pub coefficient: Factor,
    /// Coupled weight decay.
    pub weight_decay: f64,
}

impl Default for Prepare {
    fn default() -> Self {
        Self {
            scale: Factor::ONE,
            clip_value: f64::INFINITY,
            coefficient: Factor::ONE,
            weight_decay: 0.0,
        }
    }
}

impl Prepare {
    /// The one factor that is all there is to do, if it is.
    pub(crate) fn plain<T: Float>(&self) -> Option<T> {
        let factor = T::from_f64(self.scale.to_f64() * self.coefficient.to_f64());
        // A subnormal or infinite factor has lost digits that its parts still have.
        let exact = factor.abs() >= T::MIN_POSITIVE && factor.is_finite();
        (exact && self.clip_value == f64::INFINITY && self.weight_decay == 0.0).then_some(factor)
    }

    /// Writes the prepared gradient to `out`.
    pub(crate) fn write<T: Float>(&self, p: &[T], g: &[T], out: &mut [T], tier: Tier) {
        tier.run(Prepared {
            scale: self.scale.parts(),
            clip_value: T::from_f64(self.clip_value),
            coefficient: self.coefficient.parts(),
            weight_decay: T::from_f64(self.weight_decay),
            p,
            g,
            out,
        });
    }
}

struct Prepared<'a, T> {
    scale: [T; 2],
    clip_value: T,
    coefficient: [T; 2],
    weight_decay: T,
    p: &'a [T],
    g: &'a [T],
    out: &'a mut [T],
}

impl<T: Float> Kernel for Prepared<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            scale,
            clip_value,
            coefficient,
            weight_decay,
            p,
            g,
            out,
        } = self;
        let n = out.len();
        let (p, g) = (&p[..n], &g[..n]);
        for i in 0..n {
            let scaled = g[i] * scale[0] * scale[1];
            out[i] = scaled.clamp_abs(clip_value) * coefficient[0] * coefficient[1];
        }
        // Not a term of 0: a parameter that is infinite would make it NaN.
        if weight_decay != T::ZERO {
            for i in 0..n {
                out[i] += weight_decay * p[i];
            }
        }
    }
}
