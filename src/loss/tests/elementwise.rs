//! The elementwise losses: the same bits on every tier, for any number of threads and in place.

use super::*;
use crate::exec::isa::{self, Tier};
use crate::exec::pool;

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

/// Miri takes a minute for a few thousand elements.
const SIZES: &[usize] = if cfg!(miri) {
    &[0, 33]
} else {
    &[0, 1, 31, 32, 33, 257, 100_003]
};

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
