//! The losses: one file each, and the drivers' view of what they read and write.
//!
//! A loss of one element at a time implements [`Pointwise`](crate::pointwise::Pointwise) and has a
//! line in the list below, by which the bindings find it. Losses of rows have signatures of their
//! own and stand on [`rowwise`](crate::rowwise).

pub mod absolute;
pub mod binary;
mod buffers;
mod classes;
pub mod cross_entropy;
pub mod likelihood;
pub mod log_cosh;
mod logistic;
pub mod margin;
pub mod mse;
pub mod sigmoid_focal;
mod weights;

pub(crate) use buffers::{Buffers, Partials, piece};
pub use buffers::{Input, Reduction};
pub use weights::Weights;

use crate::error::{Error, Result};
use crate::math::Math;
use crate::pointwise;

/// The list: the name of each elementwise loss, and how its parameters make it. Where a number is
/// given for a parameter, the loss is one of its own.
macro_rules! elementwise {
    ($($name:literal: $type:ty, [$($parameter:pat),*] => $make:expr;)*) => {
        /// One elementwise loss by name, with its gradient: the value under `reduction`.
        ///
        /// # Errors
        /// The name or the number of parameters is unknown, the loss does not take the weights, or
        /// an element is out of its range.
        pub fn elementwise<T: Math>(
            name: &str,
            parameters: &[f64],
            weights: Weights<'_, T>,
            input: Input<'_, T>,
            target: &[T],
            reduction: Reduction<'_, T>,
            loss_scale: f64,
        ) -> Result<f64> {
            check_loss_scale(loss_scale)?;
            if name == "bce" {
                binary::check(input.elements(), target)?;
            }
            if !weights.is_empty() {
                return weights.compute(name, input, target, reduction, loss_scale);
            }
            match (name, parameters) {
                $(($name, &[$($parameter),*]) => {
                    let loss: $type = $make;
                    Ok(pointwise::compute(loss, input, target, reduction, loss_scale))
                })*
                _ => Err(Error::Value(format!(
                    "{name:?} with {} parameters is no elementwise loss", parameters.len()
                ))),
            }
        }
    };
}

elementwise! {
    "mse": mse::Mse, [] => mse::Mse;
    "l1": absolute::L1, [] => absolute::L1;
    "huber": absolute::Huber<T>, [delta] => absolute::Huber { delta: T::from_f64(delta) };
    "smooth_l1": absolute::SmoothL1<T>, [beta] => absolute::SmoothL1 { beta: T::from_f64(beta) };
    "hinge": margin::Hinge<T>, [margin, squared] => margin::Hinge {
        margin: T::from_f64(margin), squared: squared != 0.0
    };
    "soft_margin": margin::SoftMargin, [] => margin::SoftMargin;
    "hinge_embedding": margin::HingeEmbedding<T>, [margin] => margin::HingeEmbedding {
        margin: T::from_f64(margin)
    };
    "kl_div": likelihood::KlDivergence, [log_target] => likelihood::KlDivergence {
        log_target: log_target != 0.0
    };
    "poisson_nll": likelihood::Poisson<T, false>, [log_input, 0.0, eps] => likelihood::Poisson {
        log_input: log_input != 0.0, eps: T::from_f64(eps)
    };
    "poisson_nll": likelihood::Poisson<T, true>, [log_input, _, eps] => likelihood::Poisson {
        log_input: log_input != 0.0, eps: T::from_f64(eps)
    };
    "log_cosh": log_cosh::LogCosh, [] => log_cosh::LogCosh;
    "bce": binary::Bce, [] => binary::Bce;
    "bce_with_logits": binary::BceWithLogits, [] => binary::BceWithLogits;
    "sigmoid_focal": sigmoid_focal::SquaredFocal<T>, [2.0, positive, negative] =>
        sigmoid_focal::SquaredFocal { alpha: [positive, negative].map(T::from_f64) };
    "sigmoid_focal": sigmoid_focal::SigmoidFocal, [gamma, positive, negative] =>
        sigmoid_focal::SigmoidFocal { gamma, alpha: [positive, negative] };
}

/// Checks the factor of the gradient.
///
/// # Errors
/// It is not finite.
pub fn check_loss_scale(loss_scale: f64) -> Result<()> {
    if loss_scale.is_finite() && loss_scale > 0.0 {
        return Ok(());
    }
    Err(Error::Value(format!(
        "loss_scale must be finite and > 0, got {loss_scale}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{self, Tier};
    use crate::threads;

    const CASES: &[(&str, &[f64])] = &[
        ("mse", &[]),
        ("l1", &[]),
        ("huber", &[0.5]),
        ("smooth_l1", &[0.5]),
        ("hinge", &[1.0, 0.0]),
        ("hinge", &[1.0, 1.0]),
        ("soft_margin", &[]),
        ("hinge_embedding", &[1.0]),
        ("kl_div", &[0.0]),
        ("kl_div", &[1.0]),
        ("poisson_nll", &[1.0, 0.0, 1e-8]),
        ("poisson_nll", &[0.0, 1.0, 1e-8]),
        ("log_cosh", &[]),
        ("bce", &[]),
        ("bce_with_logits", &[]),
        ("sigmoid_focal", &[2.0, 0.25, 0.75]),
        ("sigmoid_focal", &[1.5, 1.0, 1.0]),
    ];

    /// Bits, so that NaN equals itself.
    fn bits<T: Math>(x: &[T]) -> Vec<u64> {
        x.iter().map(|x| x.to_f64().to_bits()).collect()
    }

    fn check<T: Math>(name: &str, parameters: &[f64], n: usize, weighted: [bool; 2]) {
        let of = |i: usize, m: usize| T::from_f64((i % m) as f64 / m as f64);
        let x: Vec<T> = (0..n).map(|i| of(i, 97)).collect();
        let y: Vec<T> = (0..n).map(|i| of(i, 89)).collect();
        let weights = Weights {
            weight: weighted[0].then_some(&*y),
            pos_weight: weighted[1].then_some(&y[..n.min(41)]),
        };
        let run = || {
            let (mut gradient, mut in_place) = (vec![T::ONE; n], x.clone());
            let mut values = vec![T::ZERO; n];
            let call = |input, reduction| {
                let found = elementwise(name, parameters, weights, input, &y, reduction, 3.0);
                found.expect("known")
            };
            let value = call(Input::Gradient(&x, &mut gradient), Reduction::Sum);
            assert_eq!(call(Input::Value(&x), Reduction::Sum), value);
            call(Input::InPlace(&mut in_place), Reduction::None(&mut values));
            assert_eq!(bits(&in_place), bits(&gradient));
            (value.to_bits(), bits(&values), bits(&gradient))
        };
        let expected = isa::with_tier(Tier::Baseline, run).expect("supported");
        for tier in Tier::supported() {
            for count in [1, 3] {
                let found = isa::with_tier(tier, || threads::with_threads(count, run));
                assert!(
                    found.expect("supported") == expected,
                    "{name} {n} {tier} {count}"
                );
            }
        }
    }

    #[test]
    fn tiers_threads_and_places_give_the_same_bits() {
        for n in [0, 1, 31, 32, 33, 257, 100_003] {
            for &(name, parameters) in CASES {
                check::<f32>(name, parameters, n, [false; 2]);
                check::<f64>(name, parameters, n, [false; 2]);
            }
            for weighted in [[true, false], [false, true], [true, true]] {
                check::<f32>("bce_with_logits", &[], n, weighted);
                check::<f64>("bce_with_logits", &[], n, weighted);
            }
            check::<f32>("bce", &[], n, [true, false]);
        }
    }

    #[test]
    fn what_no_loss_takes() {
        let weighted = Weights {
            pos_weight: Some(&[1.0][..]),
            ..Weights::default()
        };
        for (name, parameters, weights) in [
            ("square", &[][..], Weights::default()),
            ("huber", &[], Weights::default()),
            ("mse", &[], weighted),
            ("bce", &[], weighted),
        ] {
            let input = Input::Value(&[0.5]);
            let found = elementwise(
                name,
                parameters,
                weights,
                input,
                &[0.5],
                Reduction::Sum,
                1.0,
            );
            assert!(matches!(found, Err(Error::Value(why)) if why.contains(name)));
        }
    }
}
