//! Tests of the norm of all gradients and of the check for finite gradients, against formulas in
//! `f64`.

use crate::numeric::float::Float;
use crate::numeric::scale::ScaleFactor;
use crate::ops::clip::total_norm;
use crate::ops::penalty::Penalty;
use crate::storage::view::StorageView;
use crate::sweep::all_reduce::Local;
use crate::sweep::norm::{Group, first_infinite, norm};
use crate::sweep::prologue::Prologue;
use crate::sweep::segment::{Segment, StepContext};

/// Pairs of a parameter and its gradient.
type Pairs<T> = Vec<(Vec<T>, Vec<T>)>;

/// The shapes of all arrays in these tests.
const SHAPES: [[usize; 1]; 5] = [[0], [1], [2], [5], [LARGE]];

/// More than a block of a reduction.
const LARGE: usize = if cfg!(miri) { 600 } else { 9_000 };

/// Calls `f` with two groups: one of `f32` with even indices, one of `f64` with odd indices.
fn of_groups<R>(
    single: &mut Pairs<f32>,
    double: &mut Pairs<f64>,
    prologue: Prologue,
    f: impl Fn(&[Group<'_, '_>]) -> R,
) -> R {
    fn segments<T: Float>(pairs: &mut Pairs<T>, first: usize) -> Vec<Segment<'_, T>> {
        let numbered = pairs.iter_mut().zip((first..).step_by(2));
        let mut segments = Vec::new();
        for ((p, g), index) in numbered {
            let shape = SHAPES.iter().find(|shape| shape[0] == p.len());
            let shape = shape.expect("a shape in SHAPES");
            let state: [&mut [T]; 0] = [];
            segments
                .push(Segment::native(p, g, shape, state, StepContext::default()).numbered(index));
        }
        segments
    }
    let (single, double) = (segments(single, 0), segments(double, 1));
    f(&[
        Group {
            single: &single,
            double: &[],
            prologue,
        },
        Group {
            single: &[],
            double: &double,
            prologue,
        },
    ])
}

fn numbers<T: Float>(n: usize) -> Vec<T> {
    (0..n)
        .map(|i| T::from_f64((i as f64 * 0.7).sin()))
        .collect()
}

fn pairs<T: Float>() -> Pairs<T> {
    // The signs of `p` differ from those of `g`.
    let pair = |n| {
        (
            numbers::<T>(n).into_iter().map(|x| T::ZERO - x).collect(),
            numbers(n),
        )
    };
    [5, 0, LARGE].map(pair).into()
}

#[test]
fn the_norm_is_that_of_gradients_before_clipping_by_norm_and_weight_decay() {
    let plain = Prologue {
        scale: ScaleFactor::quotient(-3.0, 1.0),
        // Applied after the norm, so they must not affect it.
        coefficient: ScaleFactor::quotient(1.0, 7.0),
        weight_decay: 5.0,
        ..Prologue::default()
    };
    let regularizer = Penalty { l1: 0.5, l2: 0.25 };
    for prologue in [
        plain,
        Prologue {
            clip_value: 0.75,
            ..plain
        },
        Prologue {
            regularizer,
            ..plain
        },
        Prologue {
            regularizer,
            clip_value: 0.75,
            ..plain
        },
    ] {
        let Penalty { l1, l2 } = prologue.regularizer;
        let prepared = |p: f64, g: f64| {
            let sign = if p == 0.0 { 0.0 } else { p.signum() };
            (-3.0 * g + l1 * sign + 2.0 * l2 * p).clamp(-prologue.clip_value, prologue.clip_value)
        };
        let (mut single, mut double) = (pairs::<f32>(), pairs::<f64>());
        let mut sum = 0.0;
        for (p, g) in &single {
            let terms = p.iter().zip(g).map(|(&p, &g)| prepared(p.into(), g.into()));
            sum += terms.map(|x| x * x).sum::<f64>();
        }
        for (p, g) in &double {
            let terms = p.iter().zip(g).map(|(&p, &g)| prepared(p, g));
            sum += terms.map(|x| x * x).sum::<f64>();
        }
        for check in [false, true] {
            let found = of_groups(&mut single, &mut double, prologue, |groups| {
                norm(groups, check, &Local)
            });
            assert!(
                (found / sum.sqrt() - 1.0).abs() < 1e-7,
                "{prologue:?}: {found}"
            );
        }
    }
}

#[test]
fn arrays_are_added_in_the_order_of_their_indices() {
    let (single, double) = ([vec![4.75_f32], vec![9.875]], [vec![0.2], vec![1.2]]);
    let squares = [4.75_f64, 9.875, 0.2, 1.2].map(|x| x * x);
    let arrays = [
        StorageView::read(&single[0]).into(),
        StorageView::read(&double[0]).into(),
        StorageView::read(&single[1]).into(),
        StorageView::read(&double[1]).into(),
    ];
    let expected = total_norm(&arrays, 2.0);
    // Adding in the order of the groups gives another result.
    assert_ne!(squares.into_iter().sum::<f64>().sqrt(), expected);
    let mut single: Pairs<f32> = single.map(|g| (g.clone(), g)).into();
    let mut double: Pairs<f64> = double.map(|g| (g.clone(), g)).into();
    let prologue = Prologue::default();
    let found = of_groups(&mut single, &mut double, prologue, |groups| {
        norm(groups, false, &Local)
    });
    assert_eq!(found, expected);
}

#[test]
fn squares_outside_the_range_of_f64_do_not_overflow_or_underflow() {
    for x in [3e200, 3e-200] {
        let mut double: Pairs<f64> = vec![(vec![0.0; 2], vec![x, -x * 4.0 / 3.0])];
        // Once without and once with a prologue that does more than scale.
        for clip_value in [f64::INFINITY, 1e300] {
            let prologue = Prologue {
                clip_value,
                ..Prologue::default()
            };
            let found = of_groups(&mut vec![], &mut double, prologue, |groups| {
                norm(groups, true, &Local)
            });
            assert!((found / (x * 5.0 / 3.0) - 1.0).abs() < 1e-15, "{found}");
        }
    }
}

#[test]
fn a_checked_norm_is_nan_if_a_gradient_is_not_finite() {
    let clipped = Prologue {
        clip_value: 1.0,
        ..Prologue::default()
    };
    let scaled = Prologue {
        scale: ScaleFactor::quotient(1e30, 1.0),
        ..clipped
    };
    for (prologue, bad) in [(clipped, f32::INFINITY), (scaled, -1e20)] {
        let mut single: Pairs<f32> = vec![(vec![0.0; 2], vec![0.0, bad])];
        let mut found = |check| {
            of_groups(&mut single, &mut vec![], prologue, |groups| {
                norm(groups, check, &Local)
            })
        };
        assert_eq!(found(false), 1.0);
        assert!(found(true).is_nan());
    }
    let mut single: Pairs<f32> = vec![(vec![0.0; 2], vec![0.0, f32::INFINITY])];
    let plain = Prologue::default();
    let found = of_groups(&mut single, &mut vec![], plain, |groups| {
        norm(groups, false, &Local)
    });
    assert_eq!(found, f64::INFINITY);
}

#[test]
fn the_first_parameter_with_a_gradient_that_is_not_finite_is_found() {
    let first = |single: [f32; 2], double: [f64; 2], scale: f64| {
        let mut single: Pairs<f32> = single.map(|x| (vec![0.0; 2], vec![1.0, x])).into();
        let mut double: Pairs<f64> = double.map(|x| (vec![0.0; 2], vec![1.0, x])).into();
        let prologue = Prologue {
            scale: ScaleFactor::quotient(scale, 1.0),
            clip_value: 1.0,
            ..Prologue::default()
        };
        of_groups(&mut single, &mut double, prologue, first_infinite)
    };
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    assert_eq!(first([1.0, 2.0], [3.0, 4.0], 1.0), None);
    assert_eq!(first([f32::NAN, 2.0], [inf, 4.0], 1.0), Some(0));
    assert_eq!(first([1.0, f32::INFINITY], [nan, 4.0], 1.0), Some(1));
    assert_eq!(first([1.0, -f32::INFINITY], [3.0, nan], 1.0), Some(2));
    assert_eq!(first([1.0, 2.0], [3.0, -inf], 1.0), Some(3));
    // Finite before scaling, infinite after.
    assert_eq!(first([1.0, 1e20], [1e20, 4.0], 1e30), Some(2));
    assert_eq!(first([1.0, 1e20], [1e300, 4.0], 1e10), Some(1));
    assert_eq!(first([1.0, 1e20], [1e300, 4.0], 1e-10), None);
}
