//! The elementwise losses: the same bits on every tier, for any number of threads and in place.

use super::*;
use crate::exec::isa::{self, Tier};
use crate::exec::pool;
use crate::hyper::Value::{Flag, Number, Optional};

const CASES: &[(&str, &[Value])] = &[
    ("mse", &[]),
    ("l1", &[]),
    ("huber", &[Number(0.5)]),
    ("smooth_l1", &[Number(0.5)]),
    ("hinge", &[Number(1.0), Flag(false)]),
    ("hinge", &[Number(1.0), Flag(true)]),
    ("soft_margin", &[]),
    ("hinge_embedding", &[Number(1.0)]),
    ("kl_div", &[Flag(false)]),
    ("kl_div", &[Flag(true)]),
    ("poisson_nll", &[Flag(true), Flag(false), Number(1e-8)]),
    ("poisson_nll", &[Flag(false), Flag(true), Number(1e-8)]),
    ("log_cosh", &[]),
    ("bce", &[]),
    ("bce_with_logits", &[]),
    ("sigmoid_focal", &[Number(2.0), Optional(Some(0.25))]),
    ("sigmoid_focal", &[Number(1.5), Optional(None)]),
];

/// Miri takes a minute for a few thousand elements.
const SIZES: &[usize] = if cfg!(miri) {
    &[0, 33, 65]
} else {
    &[0, 1, 31, 32, 33, 257, 100_003]
};

/// Bits, so that NaN equals itself.
fn bits<T: Math>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.to_f64().to_bits()).collect()
}

fn check<T: Math>(name: &str, arguments: &[Value], n: usize, weighted: [bool; 2]) {
    let loss = loss(name, arguments);
    let of = |i: usize, m: usize| T::from_f64((i % m) as f64 / m as f64);
    let x: Vec<T> = (0..n).map(|i| of(i, 97)).collect();
    let y: Vec<T> = (0..n).map(|i| of(i, 89)).collect();
    let weights = [
        weighted[0].then_some(&*y),
        weighted[1].then_some(&y[..n.min(41)]),
    ];
    let run = || {
        let (mut gradient, mut in_place) = (vec![T::ONE; n], x.clone());
        let mut values = vec![T::ZERO; n];
        let call = |input, reduction| {
            let found = loss.evaluate(Call {
                weights,
                loss_scale: 3.0,
                ..Call::new(vec![input], Some(Target::Numbers(&y)), reduction)
            });
            found.expect("good arguments")
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
            let found = isa::with_tier(tier, || pool::with_threads(count, run));
            assert!(
                found.expect("supported") == expected,
                "{name} {n} {tier} {count}"
            );
        }
    }
}

#[test]
fn tiers_threads_and_places_give_the_same_bits() {
    for &n in SIZES {
        for &(name, arguments) in CASES {
            check::<f32>(name, arguments, n, [false; 2]);
            check::<f64>(name, arguments, n, [false; 2]);
        }
        for weighted in [[true, false], [false, true], [true, true]] {
            check::<f32>("bce_with_logits", &[], n, weighted);
            check::<f64>("bce_with_logits", &[], n, weighted);
        }
        check::<f32>("bce", &[], n, [true, false]);
    }
}

#[test]
fn arrays_and_options_that_a_loss_does_not_take_are_refused() {
    let x = [0.5];
    let good = || {
        Call::new(
            vec![Input::Value(&x)],
            Some(Target::Numbers(&x)),
            Reduction::Sum,
        )
    };
    assert!(loss("mse", &[]).evaluate(good()).is_ok());
    let weight = Some(&x[..]);
    for (call, message) in [
        (
            Call {
                inputs: vec![],
                ..good()
            },
            "inputs",
        ),
        (
            Call {
                target: None,
                ..good()
            },
            "target",
        ),
        (
            Call {
                weights: [weight, None],
                ..good()
            },
            "weights",
        ),
        (
            Call {
                ignore_index: Some(1),
                ..good()
            },
            "ignore_index",
        ),
        (
            Call {
                reduction: Reduction::BatchMean(1),
                ..good()
            },
            "batch mean",
        ),
        (
            Call {
                loss_scale: 0.0,
                ..good()
            },
            "loss_scale",
        ),
    ] {
        let found = loss("mse", &[]).evaluate(call);
        assert!(matches!(found, Err(Error::Value(why)) if why.contains(message)));
    }
    let call = Call {
        weights: [None, weight],
        ..good()
    };
    assert!(loss("bce", &[]).evaluate(call).is_err());
    let call = Call {
        target: Some(Target::Integers(&[1])),
        ..good()
    };
    assert!(matches!(
        loss("mse", &[]).evaluate(call),
        Err(Error::Type(_))
    ));
}

#[test]
fn the_batch_mean_divides_by_the_number_of_rows() {
    let (x, y) = ([-1.0, -2.0, -3.0, -1.0], [0.25, 0.75, 0.5, 0.5]);
    let found = |reduction| {
        let mut gradient = [7.0; 4];
        let inputs = vec![Input::Gradient(&x, &mut gradient)];
        let call = Call::new(inputs, Some(Target::Numbers(&y)), reduction);
        let value = loss("kl_div", &[Flag(false)]).evaluate(call);
        (value.expect("good arguments"), gradient)
    };
    let (sum, slopes) = found(Reduction::Sum);
    let (mean, halves) = found(Reduction::BatchMean(2));
    assert_eq!((sum / 2.0, slopes.map(|g| g / 2.0)), (mean, halves));
}
