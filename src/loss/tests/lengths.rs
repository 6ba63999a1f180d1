//! Lengths that do not match, or whose product overflows, are refused before anything is written.

use super::*;
use crate::hyper::Value::{Flag, Number, Optional};
use crate::loss::triplets::{self, Kind as Triplets};

const OF_SCORES: [(&str, &[Value]); 5] = [
    ("cross_entropy", &[Number(0.0)]),
    ("cross_entropy", &[Number(0.1)]),
    ("focal", &[Number(2.0), Optional(Some(0.25))]),
    ("multi_margin", &[Number(1.0), Number(1.0), Flag(true)]),
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
    for (name, arguments) in OF_SCORES {
        let labels = labels::<f32>([4, HALF / 2], Target::Integers(&[1, 0, 1, 0]));
        let input = Input::InPlace(&mut []);
        let found = loss(name, arguments).evaluate(scores(labels, input, Reduction::Sum));
        assert!(is_refused(&found), "{name}");
    }
    for shape in [[HALF, 2], [ROOT, ROOT], [usize::MAX, 0]] {
        let labels = labels::<f32>(shape, Target::Numbers(&[]));
        let input = Input::Value(&[]);
        let loss = loss("cross_entropy", &[Number(0.0)]);
        let found = loss.evaluate(scores(labels, input, Reduction::Sum));
        assert!(is_refused(&found), "{shape:?}");
    }
}

#[test]
fn vectors_whose_elements_cannot_be_counted() {
    let triplet = [
        Number(1.0),
        Number(2.0),
        Number(0.0),
        Flag(false),
        Flag(false),
    ];
    let margin = [Number(1.0)];
    for (name, arguments, inputs, target) in [
        ("triplet_margin", &triplet[..], 3, None),
        ("contrastive", &margin, 2, Some(Target::Integers(&[1, 0]))),
        (
            "cosine_embedding",
            &margin,
            2,
            Some(Target::Integers(&[1, -1])),
        ),
    ] {
        for shape in [[2, HALF], [HALF, 2], [ROOT, ROOT], [usize::MAX, 0]] {
            let inputs = (0..inputs)
                .map(|_| Input::<f32>::InPlace(&mut []))
                .collect();
            let found = loss(name, arguments).evaluate(Call {
                shape,
                ..Call::new(inputs, target, Reduction::Sum)
            });
            assert!(is_refused(&found), "{name} {shape:?}");
        }
    }
    let found = triplets::mine::<f32>(&[], HALF, &[0, 1], Triplets::Hard, 0.2);
    assert!(is_refused(&found));
}

#[test]
fn an_array_without_rows_may_have_more_classes_than_fit_in_memory() {
    let labels = labels::<f32>([0, usize::MAX], Target::Integers(&[]));
    for (name, arguments) in OF_SCORES {
        let input = Input::Value(&[]);
        let found = loss(name, arguments).evaluate(scores(labels, input, Reduction::Sum));
        assert_eq!(found, Ok(0.0), "{name}");
    }
}

#[test]
fn a_row_without_classes_has_no_target() {
    for (name, arguments) in OF_SCORES {
        let labels = Labels {
            ignore_index: Some(-1),
            ..labels::<f32>([1, 0], Target::Integers(&[-1]))
        };
        let input = Input::InPlace(&mut []);
        let found = loss(name, arguments).evaluate(scores(labels, input, Reduction::Sum));
        if name == "multi_margin" {
            // It has no `ignore_index`.
            assert!(is_refused(&found));
        } else {
            assert_eq!(found, Ok(0.0), "{name}");
        }
    }
}

#[test]
fn arrays_of_another_length() {
    let (x, mut g) = ([0.5_f32; 6], [7.0_f32; 6]);
    for (name, arguments) in OF_SCORES {
        // In turn the target, the input, the gradient and the values are too short.
        for [targets, inputs, gradients, values] in
            [[2, 6, 6, 3], [3, 5, 5, 3], [3, 6, 5, 3], [3, 6, 6, 2]]
        {
            let labels = labels([3, 2], Target::Integers(&[0, 1, 0][..targets]));
            let input = Input::Gradient(&x[..inputs], &mut g[..gradients]);
            let values = &mut [7.0; 3][..values];
            let call = scores(labels, input, Reduction::None(values));
            let found = loss(name, arguments).evaluate(call);
            assert!(is_refused(&found), "{name}");
        }
    }
    for (input, target, weights) in [
        (5, 6, [None, None]),
        (6, 5, [None, None]),
        (6, 6, [Some(&x[..5]), None]),
        (6, 6, [None, Some(&[][..])]),
    ] {
        let inputs = vec![Input::Gradient(&x[..input], &mut g[..input])];
        let target = Some(Target::Numbers(&x[..target]));
        let found = loss("bce_with_logits", &[]).evaluate(Call {
            weights,
            ..Call::new(inputs, target, Reduction::Sum)
        });
        assert!(is_refused(&found));
    }
    let inputs = vec![Input::Gradient(&x, &mut g), Input::Value(&x[..5])];
    let call = Call::new(inputs, Some(Target::Numbers(&x)), Reduction::Sum);
    let gaussian = loss("gaussian_nll", &[Flag(false), Number(1e-6)]);
    assert!(is_refused(&gaussian.evaluate(call)));
    for (input, target) in [(5, 3), (6, 2)] {
        let inputs = vec![Input::InPlace(&mut g), Input::Value(&x[..input])];
        let target = Some(Target::Numbers(&x[..target]));
        let found = loss("contrastive", &[Number(1.0)]).evaluate(Call {
            shape: [3, 2],
            ..Call::new(inputs, target, Reduction::Sum)
        });
        assert!(is_refused(&found));
    }
    assert!(is_refused(&triplets::mine(
        &x,
        4,
        &[0, 1],
        Triplets::Hard,
        0.2
    )));
    assert_eq!(g, [7.0; 6]);
}
