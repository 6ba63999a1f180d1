//! Lengths that do not fit together, or whose product wraps, are refused before anything is written.

use super::*;
use crate::loss::triplets::{self, Kind};

const NAMES: [(&str, &[f64]); 5] = [
    ("cross_entropy", &[0.0]),
    ("cross_entropy", &[0.1]),
    ("focal", &[2.0, 0.25]),
    ("multi_margin", &[1.0, 1.0, 1.0]),
    ("nll", &[]),
];

/// Twice this is 0 in wrapping arithmetic.
const HALF: usize = 1 << (usize::BITS - 1);

/// The square of this is 0 in wrapping arithmetic.
const ROOT: usize = 1 << (usize::BITS / 2);

fn labels<T>(shape: [usize; 2], target: Target<'_, T>) -> Labels<'_, T> {
    Labels {
        shape,
        target,
        weight: None,
        ignore_index: None,
    }
}

fn is_refused<T>(found: &Result<T>) -> bool {
    matches!(found, Err(Error::Value(_)))
}

#[test]
fn rows_whose_elements_cannot_be_counted() {
    for (name, parameters) in NAMES {
        for target in [Target::I32(&[1, 0, 1, 0]), Target::I64(&[1, 0, 1, 0])] {
            let labels = labels::<f32>([4, HALF / 2], target);
            let input = Input::InPlace(&mut []);
            let found = of_rows(name, parameters, labels, input, Reduction::Sum, 1.0);
            assert!(is_refused(&found), "{name}");
        }
    }
    for shape in [[HALF, 2], [ROOT, ROOT], [usize::MAX, 0]] {
        let labels = labels::<f32>(shape, Target::Numbers(&[]));
        let input = Input::Value(&[]);
        let found = of_rows("cross_entropy", &[0.0], labels, input, Reduction::Sum, 1.0);
        assert!(is_refused(&found), "{shape:?}");
    }
}

#[test]
fn vectors_whose_elements_cannot_be_counted() {
    for (name, parameters, inputs, target) in [
        ("triplet_margin", &[1.0, 2.0, 0.0, 0.0, 0.0][..], 3, None),
        ("contrastive", &[1.0], 2, Some(Target::I32(&[1, 0]))),
        ("cosine_embedding", &[0.0], 2, Some(Target::I64(&[1, -1]))),
    ] {
        for shape in [[2, HALF], [HALF, 2], [ROOT, ROOT], [usize::MAX, 0]] {
            let inputs = (0..inputs)
                .map(|_| Input::<f32>::InPlace(&mut []))
                .collect();
            let found = of_vectors(name, parameters, inputs, shape, target, Reduction::Sum, 1.0);
            assert!(is_refused(&found), "{name} {shape:?}");
        }
    }
    let found = triplets::mine::<f32>(&[], HALF, &[0, 1], Kind::Hard, 0.2);
    assert!(is_refused(&found));
}

#[test]
fn no_row_has_more_classes_than_memory_holds() {
    let labels = labels::<f32>([0, usize::MAX], Target::I64(&[]));
    for (name, parameters) in NAMES {
        let input = Input::Value(&[]);
        let found = of_rows(name, parameters, labels, input, Reduction::Sum, 1.0);
        assert_eq!(found, Ok(0.0), "{name}");
    }
}

#[test]
fn a_row_without_classes_has_no_target() {
    for (name, parameters) in NAMES {
        let labels = Labels {
            ignore_index: Some(-1),
            ..labels::<f32>([1, 0], Target::I64(&[-1]))
        };
        let input = Input::InPlace(&mut []);
        let found = of_rows(name, parameters, labels, input, Reduction::Sum, 1.0);
        if name == "multi_margin" {
            // It has no ignored rows.
            assert!(is_refused(&found));
        } else {
            assert_eq!(found, Ok(0.0), "{name}");
        }
    }
}

#[test]
fn arrays_of_another_length() {
    let (x, mut g) = ([0.5_f32; 6], [7.0_f32; 6]);
    for (name, parameters) in NAMES {
        // In turn the target, the input, the gradient and the values are too short.
        for [targets, inputs, gradients, values] in
            [[2, 6, 6, 3], [3, 5, 5, 3], [3, 6, 5, 3], [3, 6, 6, 2]]
        {
            let labels = labels([3, 2], Target::I64(&[0, 1, 0][..targets]));
            let input = Input::Gradient(&x[..inputs], &mut g[..gradients]);
            let reduction = &mut [7.0; 3][..values];
            let found = of_rows(
                name,
                parameters,
                labels,
                input,
                Reduction::None(reduction),
                1.0,
            );
            assert!(is_refused(&found), "{name}");
        }
    }
    let weights = |weight, pos_weight| Weights { weight, pos_weight };
    for (input, target, weights) in [
        (5, 6, Weights::default()),
        (6, 5, Weights::default()),
        (6, 6, weights(Some(&x[..5]), None)),
        (6, 6, weights(None, Some(&[][..]))),
    ] {
        let input = Input::Gradient(&x[..input], &mut g[..input]);
        let name = "bce_with_logits";
        let found = elementwise(name, &[], weights, input, &x[..target], Reduction::Sum, 1.0);
        assert!(is_refused(&found));
    }
    let gaussian = gaussian::Gaussian {
        full: false,
        eps: 1e-6,
    };
    let inputs = [Input::Gradient(&x, &mut g), Input::Value(&x[..5])];
    assert!(is_refused(&gaussian.compute(
        inputs,
        &x,
        Reduction::Sum,
        1.0
    )));
    let inputs = vec![Input::InPlace(&mut g), Input::Value(&x[..5])];
    let target = Some(Target::Numbers(&x[..3]));
    let found = of_vectors(
        "contrastive",
        &[1.0],
        inputs,
        [3, 2],
        target,
        Reduction::Sum,
        1.0,
    );
    assert!(is_refused(&found));
    assert!(is_refused(&triplets::mine(&x, 4, &[0, 1], Kind::Hard, 0.2)));
    assert_eq!(g, [7.0; 6]);
}
