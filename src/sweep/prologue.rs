//! The operations on a gradient before its rule.

use crate::exec::isa::{Kernel, Tier};
use crate::numeric::float::Float;
use crate::numeric::scale::ScaleFactor;
use crate::ops::penalty::Penalty;

/// `coefficient * clamp(scale * g + l1 sign(p) + 2 l2 p, clip_value) + weight_decay * p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prologue {
    /// The factor of unscaling, negated if the objective is maximized.
    pub(crate) scale: ScaleFactor,
    /// The L1 and L2 penalties.
    pub(crate) regularizer: Penalty,
    /// The bound of clipping by value, or infinity for no clipping.
    pub(crate) clip_value: f64,
    /// The coefficient of clipping by norm.
    pub(crate) coefficient: ScaleFactor,
    /// Coupled weight decay.
    pub(crate) weight_decay: f64,
}

impl Default for Prologue {
    fn default() -> Self {
        Self {
            scale: ScaleFactor::ONE,
            regularizer: Penalty::NONE,
            clip_value: f64::INFINITY,
            coefficient: ScaleFactor::ONE,
            weight_decay: 0.0,
        }
    }
}

impl Prologue {
    /// Returns the factor of a prologue that only multiplies the gradient, if it is exact.
    pub(crate) fn plain<T: Float>(&self) -> Option<T> {
        let factor = T::from_f64(self.scale.to_f64() * self.coefficient.to_f64());
        // A subnormal or infinite factor has lost digits; the two parts of the factor have not.
        let exact = factor.abs() >= T::MIN_POSITIVE && factor.is_finite();
        (exact && self.is_scale() && self.weight_decay == 0.0).then_some(factor)
    }

    /// Returns the two factors and the weight decay of a prologue that only multiplies the gradient
    /// and adds weight decay, if the factors are exact.
    pub(crate) fn decay<T: Float>(&self) -> Option<([T; 2], T)> {
        let [scale, coefficient] = [self.scale, self.coefficient].map(ScaleFactor::parts);
        let exact = scale[1] == T::ONE && coefficient[1] == T::ONE;
        (exact && self.is_scale() && self.weight_decay != 0.0)
            .then(|| ([scale[0], coefficient[0]], T::from_f64(self.weight_decay)))
    }

    /// Returns whether the gradient is only scaled before it is clipped by norm.
    pub(crate) fn is_scale(&self) -> bool {
        self.clip_value == f64::INFINITY && self.regularizer == Penalty::NONE
    }

    /// Writes the prepared gradient to `out`.
    pub(crate) fn write<T: Float>(&self, p: &[T], g: &[T], out: &mut [T], tier: Tier) {
        tier.run(ApplyPrologue {
            scale: self.scale.parts(),
            l1: T::from_f64(self.regularizer.l1),
            twice_l2: T::from_f64(2.0 * self.regularizer.l2),
            clip_value: T::from_f64(self.clip_value),
            coefficient: self.coefficient.parts(),
            weight_decay: T::from_f64(self.weight_decay),
            p,
            g,
            out,
        });
    }
}

struct ApplyPrologue<'a, T> {
    scale: [T; 2],
    l1: T,
    twice_l2: T,
    clip_value: T,
    coefficient: [T; 2],
    weight_decay: T,
    p: &'a [T],
    g: &'a [T],
    out: &'a mut [T],
}

impl<T: Float> Kernel for ApplyPrologue<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            scale,
            l1,
            twice_l2,
            clip_value,
            coefficient,
            weight_decay,
            p,
            g,
            out,
        } = self;
        let n = out.len();
        let (p, g) = (&p[..n], &g[..n]);
        // Terms with a coefficient of 0 are skipped, because 0 times an infinite parameter is NaN.
        if l1 == T::ZERO && twice_l2 == T::ZERO {
            for i in 0..n {
                let scaled = g[i] * scale[0] * scale[1];
                out[i] = scaled.clamp_abs(clip_value) * coefficient[0] * coefficient[1];
            }
        } else {
            for i in 0..n {
                out[i] = g[i] * scale[0] * scale[1];
            }
            if twice_l2 == T::ZERO {
                for i in 0..n {
                    out[i] += l1 * p[i].sign();
                }
            } else if l1 == T::ZERO {
                for i in 0..n {
                    out[i] += twice_l2 * p[i];
                }
            } else {
                for i in 0..n {
                    out[i] += l1 * p[i].sign() + twice_l2 * p[i];
                }
            }
            for i in 0..n {
                out[i] = out[i].clamp_abs(clip_value) * coefficient[0] * coefficient[1];
            }
        }
        if weight_decay != T::ZERO {
            for i in 0..n {
                out[i] += weight_decay * p[i];
            }
        }
    }
}
