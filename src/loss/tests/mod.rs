//! Properties of all losses. The tests in Python compare their values with formulas.

mod elementwise;
mod lengths;
mod rows;

use super::*;
use crate::error::{Error, Result};
use crate::hyper::Value;
use crate::loss::labels::Labels;
use crate::numeric::math::Math;

/// The loss of a name with these arguments.
fn loss(name: &str, arguments: &[Value]) -> AnyLoss {
    let kind = Kind::from_name(name).expect("a known name");
    kind.loss(arguments).expect("good arguments")
}

/// A call of a loss of rows of scores.
fn scores<'a, T: Math>(
    labels: Labels<'a, T>,
    input: Input<'a, T>,
    reduction: Reduction<'a, T>,
) -> Call<'a, T> {
    Call {
        shape: labels.shape,
        weights: [labels.weight, None],
        ignore_index: labels.ignore_index,
        ..Call::new(vec![input], Some(labels.target), reduction)
    }
}

#[test]
fn every_loss_has_a_name_and_a_sound_signature() {
    for &kind in Kind::ALL {
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
        let signature = kind.signature();
        assert_eq!(signature.arrays[0].1, signature::Role::Input);
        assert!(signature.weights.len() <= signature::MAX_WEIGHTS);
        let targets = signature.arrays.iter();
        let targets = targets.filter(|(_, role)| !role.is_input());
        assert!(targets.count() <= 1);
    }
    assert_eq!(Kind::from_name("square"), None);
}

#[test]
fn arguments_out_of_range_are_refused_by_name() {
    use Value::{Flag, Number, Optional};
    for (kind, arguments, message) in [
        (
            Kind::Huber,
            vec![Number(0.0)],
            "delta must be finite and > 0, got 0",
        ),
        (
            Kind::CosineEmbedding,
            vec![Number(1.5)],
            "margin must be in [-1, 1], got 1.5",
        ),
        (
            Kind::SigmoidFocal,
            vec![Number(2.0), Optional(Some(1.1))],
            "alpha must be in [0, 1], got 1.1",
        ),
        (
            Kind::MultiMargin,
            vec![Number(3.0), Number(1.0), Flag(true)],
            "p must be 1 or 2, got 3",
        ),
        (
            Kind::TripletMargin,
            vec![
                Number(1.0),
                Number(1.0),
                Number(0.0),
                Flag(false),
                Flag(true),
            ],
            "squared distances are those of p = 2, got p = 1",
        ),
        (Kind::Mse, vec![Number(1.0)], "expected 0 arguments, got 1"),
    ] {
        assert_eq!(kind.loss(&arguments), Err(Error::Value(message.into())));
    }
}
