use super::*;
use crate::error::Error;
use crate::exec::isa::{self, Tier};
use crate::exec::pool;

/// Reproducible logits between -4 and 4.
fn logits<T: Math>(n: usize) -> Vec<T> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 21) - 4.0
    };
    (0..n).map(|_| T::from_f64(next())).collect()
}

const PLAIN: CrossEntropy = CrossEntropy {
    label_smoothing: 0.0,
};

fn labels<'a, T>(shape: [usize; 2], target: Target<'a, T>) -> Labels<'a, T> {
    Labels {
        shape,
        target,
        weight: None,
        ignore_index: Some(-100),
    }
}

fn call<'a, T: Math>(
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

/// Value and gradient of a row, from the definition.
fn oracle(x: &[f64], q: &[f64]) -> (f64, Vec<f64>) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = x.iter().map(|x| (x - max).exp()).sum();
    let mass: f64 = q.iter().sum();
    let log = max + total.ln();
    let value = x.iter().zip(q).map(|(x, q)| q * (log - x)).sum();
    (
        value,
        x.iter()
            .zip(q)
            .map(|(x, q)| mass * (x - log).exp() - q)
            .collect(),
    )
}

/// Those that Miri does not take minutes for come first.
const SHAPES: [[usize; 2]; 12] = [
    [1, 1],
    [3, 2],
    [33, 10],
    [2, 129],
    [64, 48],
    [35, 127],
    [33, 128],
    [5, 49],
    [3, 64],
    [1, 1024],
    [2, 1100],
    [7, 3000],
];

fn shapes() -> impl Iterator<Item = [usize; 2]> {
    let count = if cfg!(miri) { 4 } else { SHAPES.len() };
    SHAPES.into_iter().take(count)
}

#[test]
fn agrees_with_the_definition() {
    for [rows, classes] in shapes() {
        let x = logits::<f64>(rows * classes);
        let weight: Vec<f64> = (0..classes).map(|j| 0.5 + (j % 3) as f64).collect();
        let targets: Vec<i64> = (0..rows).map(|row| (row * 7 % classes) as i64).collect();
        let given: Vec<f64> = logits::<f64>(rows * classes)
            .iter()
            .map(|x| x.abs() / 4.0)
            .collect();
        for smoothing in [0.0, 0.3] {
            let loss = CrossEntropy {
                label_smoothing: smoothing,
            };
            for target in [Target::Integers(&targets), Target::Numbers(&given)] {
                let mut gradient = vec![0.0; x.len()];
                let input = Input::Gradient(&x, &mut gradient);
                let labels = Labels {
                    weight: Some(&weight),
                    ..labels([rows, classes], target)
                };
                let value = loss.evaluate(Call {
                    loss_scale: 2.0,
                    ..call(labels, input, Reduction::Sum)
                });
                let mut expected = 0.0;
                for row in 0..rows {
                    let q: Vec<f64> = (0..classes)
                        .map(|j| {
                            let q = match target {
                                Target::Numbers(given) => given[row * classes + j],
                                _ => f64::from(u8::from(targets[row] == j as i64)),
                            };
                            weight[j] * ((1.0 - smoothing) * q + smoothing / classes as f64)
                        })
                        .collect();
                    let range = row * classes..(row + 1) * classes;
                    let (value, g) = oracle(&x[range.clone()], &q);
                    expected += value;
                    for (got, g) in gradient[range].iter().zip(g) {
                        assert!(
                            (got - 2.0 * g).abs() < 1e-12,
                            "{rows} x {classes}: {got} {g}"
                        );
                    }
                }
                let value = value.expect("good arguments");
                assert!((value - expected).abs() <= 1e-12 * expected.abs().max(1.0));
            }
        }
    }
}

#[test]
fn tiers_threads_and_places_give_the_same_bits() {
    fn check<T: Math>() {
        let large = [[700, 10], [9000, 12], [130, 1000]];
        let large = large.into_iter().filter(|_| !cfg!(miri));
        for [rows, classes] in shapes().chain(large) {
            let x = logits::<T>(rows * classes);
            let targets: Vec<i64> = (0..rows).map(|row| (row % classes) as i64).collect();
            for (soft, smoothing) in [(false, 0.0), (false, 0.1), (true, 0.0)] {
                let loss = CrossEntropy {
                    label_smoothing: smoothing,
                };
                let target = if soft {
                    Target::Numbers(&x)
                } else {
                    Target::Integers(&targets)
                };
                let labels = labels([rows, classes], target);
                let run = |in_place: bool| {
                    let mut gradient = x.clone();
                    let input = if in_place {
                        Input::InPlace(&mut gradient)
                    } else {
                        Input::Gradient(&x, &mut gradient)
                    };
                    let value = loss.evaluate(call(labels, input, Reduction::Mean));
                    (value.expect("good arguments"), gradient)
                };
                let expected = isa::with_tier(Tier::Baseline, || run(false)).expect("supported");
                assert!(expected.0.is_finite());
                for tier in Tier::supported() {
                    for count in if cfg!(miri) { 3..4 } else { 1..4 } {
                        let call = || pool::with_threads(count, || run(count == 3));
                        assert!(isa::with_tier(tier, call).expect("supported") == expected);
                    }
                }
                let value = loss.evaluate(call(labels, Input::Value(&x), Reduction::Mean));
                assert_eq!(value, Ok(expected.0));
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn confident_rows_keep_relative_accuracy() {
    for classes in [2, 100] {
        let mut x = vec![-20.0_f32; classes];
        x[1] = 30.0;
        let mut hot = vec![0.0; classes];
        hot[1] = 1.0;
        let others = (classes - 1) as f64 * (-50.0_f64).exp();
        for target in [Target::Integers(&[1]), Target::Numbers(&hot)] {
            let mut gradient = vec![0.0; classes];
            let input = Input::Gradient(&x, &mut gradient);
            let labels = labels([1, classes], target);
            let value = PLAIN.evaluate(call(labels, input, Reduction::Sum));
            let value = value.expect("good arguments");
            assert!((value / others - 1.0).abs() < 1e-5);
            assert!((f64::from(gradient[1]) / -others - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn a_bad_class_is_named_and_nothing_is_written() {
    let x = [1.0_f32; 6];
    let mut gradient = [7.0; 6];
    let input = Input::Gradient(&x, &mut gradient);
    let labels = labels([3, 2], Target::Integers(&[0, 2, -1]));
    let result = PLAIN.evaluate(call(labels, input, Reduction::Mean));
    assert!(matches!(result, Err(Error::Index(message)) if message.contains("target[1] is 2")));
    assert_eq!(gradient, [7.0; 6]);
}

#[test]
fn ignored_rows_add_nothing() {
    for classes in [3, 100] {
        let x = vec![f64::NAN; 2 * classes];
        let mut gradient = vec![7.0; 2 * classes];
        let input = Input::Gradient(&x, &mut gradient);
        let labels = labels([2, classes], Target::Integers(&[-100, -100]));
        let value = PLAIN.evaluate(call(labels, input, Reduction::Mean));
        assert!(value.expect("good arguments").is_nan());
        assert!(gradient.iter().all(|&g| g == 0.0));
    }
}
