//! The losses of rows and of vectors: the same bits on every tier and for any number of threads.

use super::*;
use crate::exec::isa::{self, Tier};
use crate::exec::pool;
use crate::hyper::Value::{Flag, Number, Optional};

/// Numbers in (0, 1) without a pattern.
fn numbers<T: Math>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f64 + 0.5) / f64::from(1 << 24)
    };
    (0..n).map(|_| T::from_f64(next())).collect()
}

/// The value and the gradients of a call.
type Found<T> = (f64, Vec<Vec<T>>);

/// Calls `f` with gradients of which the first `count` replace their inputs.
fn replacing<T: Math>(
    inputs: &[Vec<T>],
    count: usize,
    f: impl Fn(Vec<Input<'_, T>>, Reduction<'_, T>) -> Result<f64>,
) -> Found<T> {
    let mut gradients = inputs.to_vec();
    let places = inputs.iter().zip(&mut gradients).enumerate();
    let places = places.map(|(index, (x, g))| {
        if index < count {
            Input::InPlace(g)
        } else {
            Input::Gradient(x, g)
        }
    });
    let value = f(places.collect(), Reduction::Sum).expect("good arguments");
    (value, gradients)
}

/// Calls `f` with memory for gradients, on each tier and with several threads.
fn check<T: Math>(
    what: &str,
    inputs: &[Vec<T>],
    f: impl Fn(Vec<Input<'_, T>>, Reduction<'_, T>) -> Result<f64>,
) {
    let run = || replacing(inputs, 0, &f);
    let expected = isa::with_tier(Tier::Baseline, run).expect("supported");
    assert!(expected.0.is_finite(), "{what}");
    for tier in Tier::supported() {
        for count in [1, 2, 3] {
            let call = || pool::with_threads(count, run);
            let found = isa::with_tier(tier, call).expect("supported");
            assert!(found == expected, "{what}, {tier}, {count}");
        }
    }
    for count in 1..=inputs.len() {
        let found = replacing(inputs, count, &f);
        assert!(found == expected, "{what}, {count} in place");
    }
    let alone = inputs.iter().map(|x| Input::Value(x)).collect();
    assert_eq!(f(alone, Reduction::Sum), Ok(expected.0), "{what}");
}

/// So many rows of 12 classes are computed by several threads.
const THREADED: usize = if cfg!(miri) { 70 } else { 9000 };

/// Miri takes a minute for a few thousand elements.
const SHAPES: &[[usize; 2]] = if cfg!(miri) {
    &[[0, 3], [2, 65], [THREADED, 12]]
} else {
    &[
        [0, 3],
        [1, 1],
        [33, 10],
        [THREADED, 12],
        [5, 65],
        [130, 1000],
    ]
};

fn rows<T: Math>() {
    for &shape in SHAPES {
        let [rows, classes] = shape;
        let inputs = [numbers::<T>(rows * classes, 1)];
        let weight = numbers(classes, 2);
        let targets: Vec<i64> = (0..rows).map(|row| (row * 7 % classes) as i64).collect();
        let labels = Labels {
            shape,
            target: Target::Integers(&targets),
            weight: Some(&weight),
            ignore_index: Some(1),
        };
        for (name, arguments) in [
            ("cross_entropy", vec![Number(0.0)]),
            ("focal", vec![Number(2.0), Optional(Some(0.25))]),
            ("focal", vec![Number(0.5), Optional(None)]),
            ("multi_margin", vec![Number(1.0), Number(0.5), Flag(true)]),
            ("multi_margin", vec![Number(2.0), Number(0.5), Flag(false)]),
            ("nll", vec![]),
        ] {
            let labels = Labels {
                ignore_index: labels.ignore_index.filter(|_| name != "multi_margin"),
                ..labels
            };
            check(name, &inputs, |mut inputs, reduction| {
                let input = inputs.pop().expect("one input");
                loss(name, &arguments).evaluate(Call {
                    loss_scale: 2.0,
                    ..scores(labels, input, reduction)
                })
            });
        }
    }
}

#[test]
fn losses_of_rows_give_the_same_bits() {
    rows::<f32>();
    rows::<f64>();
}

const SHAPES_OF_VECTORS: &[[usize; 2]] = if cfg!(miri) {
    &[[0, 3], [5, 0], [2, 17], [17, 9]]
} else {
    &[
        [0, 3],
        [5, 0],
        [1, 1],
        [33, 10],
        [700, 30],
        [70, 33],
        [1100, 64],
    ]
};

fn of_several<T: Math>() {
    for &shape in SHAPES_OF_VECTORS {
        let n = shape[0] * shape[1];
        let inputs = [numbers::<T>(n, 1), numbers(n, 2), numbers(n, 3)];
        let same: Vec<i64> = (0..shape[0]).map(|row| (row % 2) as i64).collect();
        let sign: Vec<T> = same
            .iter()
            .map(|&s| T::from_f64((2 * s - 1) as f64))
            .collect();
        for p in [2.0, 0.5, 1.0, 3.0, f64::INFINITY] {
            if cfg!(miri) && shape[0] > 1 && p != 2.0 {
                continue;
            }
            for (swap, squared) in [(false, false), (true, false), (true, p == 2.0)] {
                let numbers = [1.0, p, 1e-6].map(Number);
                let arguments = [&numbers[..], &[swap, squared].map(Flag)].concat();
                let loss = loss("triplet_margin", &arguments);
                check("triplets", &inputs, |inputs, reduction| {
                    loss.evaluate(Call {
                        shape,
                        loss_scale: 2.0,
                        ..Call::new(inputs, None, reduction)
                    })
                });
            }
        }
        for (name, target) in [
            ("contrastive", Target::Integers(&same)),
            ("cosine_embedding", Target::Numbers(&sign)),
        ] {
            let loss = loss(name, &[Number(0.5)]);
            check(name, &inputs[..2], |inputs, reduction| {
                loss.evaluate(Call {
                    shape,
                    loss_scale: 2.0,
                    ..Call::new(inputs, Some(target), reduction)
                })
            });
        }
        let gaussian = loss("gaussian_nll", &[Flag(true), Number(1e-2)]);
        check("Gaussian", &inputs[..2], |given, reduction| {
            gaussian.evaluate(Call {
                loss_scale: 2.0,
                ..Call::new(given, Some(Target::Numbers(&inputs[2])), reduction)
            })
        });
    }
}

#[test]
fn losses_of_several_inputs_give_the_same_bits() {
    of_several::<f32>();
    of_several::<f64>();
}
