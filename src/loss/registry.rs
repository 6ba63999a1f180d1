//! The one list of losses.

use super::call::{Call, Loss};
use super::signature::Signature;
use super::tiled::TiledCall;
use super::{
    absolute, binary, contrastive, cosine_embedding, cross_entropy, focal, gaussian, likelihood,
    log_cosh, margin, mse, multi_margin, nll, sigmoid_focal, triplet_margin,
};
use crate::error::Result;
use crate::hyper::{Hyper, Spec, Value};
use crate::numeric::math::Math;

/// Declares the list of losses: an enum of their names, and one of the losses with their arguments.
macro_rules! losses {
    ($($name:literal $variant:ident: $loss:ty,)*) => {
        /// Every loss.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = $name] $variant,)* }

        /// A loss with its arguments.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyLoss { $(#[doc = $name] $variant($loss),)* }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The loss of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The arguments.
            pub const fn specs(self) -> &'static [Spec] {
                match self { $(Self::$variant => <$loss as Hyper>::SPECS,)* }
            }

            /// The arrays of a call.
            pub const fn signature(self) -> &'static Signature {
                match self { $(Self::$variant => &<$loss as Loss>::SIGNATURE,)* }
            }

            /// Builds the loss from one value per argument, in the order of [`Kind::specs`].
            ///
            /// # Errors
            /// A value has the wrong type or is out of range.
            pub fn loss(self, values: &[Value]) -> Result<AnyLoss> {
                match self {
                    $(Self::$variant => {
                        <$loss as Hyper>::from_values(values).map(AnyLoss::$variant)
                    })*
                }
            }
        }

        impl AnyLoss {
            /// Computes the value and the gradients, as [`Loss::evaluate`].
            ///
            /// # Errors
            /// The arguments of the call are wrong, as with [`Loss::evaluate`].
            pub fn evaluate<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
                match self { $(Self::$variant(loss) => loss.evaluate(call),)* }
            }

            /// Computes the value and the gradients, as [`Loss::evaluate_tiled`].
            ///
            /// # Errors
            /// The arguments of the call are wrong, as with [`Loss::evaluate_tiled`].
            pub fn evaluate_tiled<T: Math>(&self, call: TiledCall<'_, T>) -> Result<f64> {
                match self { $(Self::$variant(loss) => loss.evaluate_tiled(call),)* }
            }
        }
    };
}

losses! {
    "mse" Mse: mse::Mse,
    "l1" L1: absolute::L1,
    "huber" Huber: absolute::Huber,
    "smooth_l1" SmoothL1: absolute::SmoothL1,
    "log_cosh" LogCosh: log_cosh::LogCosh,
    "hinge" Hinge: margin::Hinge,
    "soft_margin" SoftMargin: margin::SoftMargin,
    "hinge_embedding" HingeEmbedding: margin::HingeEmbedding,
    "kl_div" KlDivergence: likelihood::KlDivergence,
    "poisson_nll" Poisson: likelihood::Poisson,
    "gaussian_nll" Gaussian: gaussian::Gaussian,
    "bce" Bce: binary::Bce,
    "bce_with_logits" BceWithLogits: binary::BceWithLogits,
    "sigmoid_focal" SigmoidFocal: sigmoid_focal::SigmoidFocal,
    "cross_entropy" CrossEntropy: cross_entropy::CrossEntropy,
    "nll" Nll: nll::Nll,
    "focal" Focal: focal::Focal,
    "multi_margin" MultiMargin: multi_margin::MultiMargin,
    "triplet_margin" TripletMargin: triplet_margin::TripletMargin,
    "contrastive" Contrastive: contrastive::Contrastive,
    "cosine_embedding" CosineEmbedding: cosine_embedding::CosineEmbedding,
}
