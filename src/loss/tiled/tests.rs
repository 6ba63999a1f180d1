use super::*;
use crate::error::Error;
use crate::exec::isa::{self, Tier};
use crate::exec::pool;
use crate::hyper::Value::{Flag, Number};
use crate::loss::{AnyLoss, Call, Input, Kind, Reduction, Target};
use crate::numeric::math::Math;
use crate::storage::{Half, Rounding, load_half, store_half};

/// Numbers in (0, 1) that are exact in 16 bits.
fn numbers<T: Math>(n: usize) -> Vec<T> {
    (0..n)
        .map(|i| T::from_f64(((i * 37 + 11) % 101) as f64 / 128.0 + 0.0625))
        .collect()
}

fn cross_entropy() -> AnyLoss {
    let loss = Kind::CrossEntropy.loss(&[Number(0.1)]);
    loss.expect("good arguments")
}

fn gaussian() -> AnyLoss {
    let loss = Kind::Gaussian.loss(&[Flag(false), Number(1e-6)]);
    loss.expect("good arguments")
}

/// Calls `f` on every tier and with several threads: the same results.
fn check<R: PartialEq>(f: impl Fn() -> R) -> R {
    let expected = isa::with_tier(Tier::Baseline, &f).expect("supported");
    for tier in Tier::supported() {
        for count in 1..4 {
            let found = isa::with_tier(tier, || pool::with_threads(count, &f));
            assert!(found.expect("supported") == expected, "{tier}, {count}");
        }
    }
    expected
}

/// So many rows are computed by several threads.
const SAMPLES: usize = if cfg!(miri) { 2 } else { 40 };
const POSITIONS: usize = if cfg!(miri) { 35 } else { 300 };
const CLASSES: usize = 7;

#[test]
fn classes_on_the_second_axis_are_rows() {
    let shape = [SAMPLES * POSITIONS, CLASSES];
    let len = shape[0] * CLASSES;
    let x: Vec<f64> = numbers(len);
    let target: Vec<i64> = (0..shape[0]).map(|row| (row % CLASSES) as i64).collect();
    let place = |row: usize, class: usize| {
        let (sample, position) = (row / POSITIONS, row % POSITIONS);
        (sample * CLASSES + class) * POSITIONS + position
    };
    let mut rows = vec![0.0; len];
    for row in 0..shape[0] {
        for class in 0..CLASSES {
            rows[row * CLASSES + class] = x[place(row, class)];
        }
    }
    let mut slopes = vec![0.0; len];
    let expected = cross_entropy().evaluate(Call {
        shape,
        ..Call::new(
            vec![Input::Gradient(&rows, &mut slopes)],
            Some(Target::Integers(&target)),
            Reduction::Mean,
        )
    });
    let layout = Layout::Columns {
        classes: CLASSES,
        positions: POSITIONS,
    };
    let (value, gradient) = check(|| {
        let mut gradient = x.clone();
        let view = StorageView::native(&mut gradient);
        let input = TiledArray::new(view, layout.clone(), len).expect("a good length");
        let value = cross_entropy().evaluate_tiled(TiledCall {
            inputs: vec![TiledInput::InPlace(input)],
            target: Some(TiledTarget::Integers(&target)),
            weights: [None, None],
            shape,
            ignore_index: None,
            reduction: TiledReduction::Mean,
            loss_scale: 1.0,
        });
        (value, gradient)
    });
    if cfg!(miri) {
        // Blocks of other lengths: the sum is rounded in another order.
        let difference = value.expect("good arguments") - expected.expect("good arguments");
        assert!(difference.abs() < 1e-12);
    } else {
        assert_eq!(value, expected);
    }
    for row in 0..shape[0] {
        for class in 0..CLASSES {
            assert_eq!(gradient[place(row, class)], slopes[row * CLASSES + class]);
        }
    }
}

#[test]
fn groups_that_cross_blocks_are_summed() {
    let rows = if cfg!(miri) { 3 } else { 5 };
    for length in [1, 3, 100, if cfg!(miri) { 150 } else { 4096 }, 5001] {
        if cfg!(miri) && length > 1000 {
            continue;
        }
        let len = rows * length;
        let (x, y): (Vec<f32>, Vec<f32>) = (numbers(len + 5)[5..].to_vec(), numbers(len));
        let bits: Vec<u16> = {
            let mut bits = vec![0; rows];
            let var: Vec<f32> = numbers(rows);
            store_half(
                Half::Bf16,
                &var,
                &mut bits,
                Rounding::Nearest,
                Tier::Baseline,
            );
            bits
        };
        let (value, by_x, by_var) = check(|| {
            let (mut by_x, mut by_var) = (vec![0.0; len], vec![0; rows]);
            let var = StorageView::read_half(Half::Bf16, &bits);
            let out = StorageView::half(Half::Bf16, &mut by_var, Rounding::Nearest);
            let array = |x| TiledArray::new(StorageView::read(x), Layout::Rows, len);
            let value = gaussian().evaluate_tiled(TiledCall {
                inputs: vec![
                    TiledInput::Gradient(
                        array(&x).expect("a good length"),
                        StorageView::native(&mut by_x),
                    ),
                    TiledInput::Gradient(
                        TiledArray::new(var, Layout::Groups(length), len).expect("a good length"),
                        out,
                    ),
                ],
                target: Some(TiledTarget::Numbers(array(&y).expect("a good length"))),
                weights: [None, None],
                shape: [len, 1],
                ignore_index: None,
                reduction: TiledReduction::Sum,
                loss_scale: 1.0,
            });
            (value, by_x, by_var)
        });
        let mut var = vec![0.0_f32; rows];
        load_half(Half::Bf16, &bits, &mut var, Tier::Baseline);
        let each: Vec<f32> = (0..len).map(|i| var[i / length]).collect();
        let (mut slopes, mut by_each) = (vec![0.0; len], vec![0.0; len]);
        let inputs = vec![
            Input::Gradient(&x, &mut slopes),
            Input::Gradient(&each, &mut by_each),
        ];
        let call = Call::new(inputs, Some(Target::Numbers(&y)), Reduction::Sum);
        let expected = gaussian().evaluate(call).expect("good arguments");
        assert!((value.expect("good arguments") - expected).abs() <= 1e-9 * expected.abs());
        assert_eq!(by_x, slopes);
        let mut found = vec![0.0_f32; rows];
        load_half(Half::Bf16, &by_var, &mut found, Tier::Baseline);
        for (found, group) in found.iter().zip(by_each.chunks(length)) {
            let sum: f64 = group.iter().copied().map(f64::from).sum();
            let scale: f64 = group.iter().map(|x| f64::from(x.abs())).sum();
            assert!((f64::from(*found) - sum).abs() <= sum.abs() / 250.0 + 1e-6 * scale);
        }
    }
}

fn rows(x: &[f64], len: usize) -> crate::error::Result<TiledArray<'_, f64>> {
    TiledArray::new(StorageView::read(x), Layout::Rows, len)
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, y) = ([0.5_f64; 6], [0.5_f64; 5]);
    let mut out = [0.0; 6];
    let refused = |array: crate::error::Result<TiledArray<'_, f64>>| {
        assert!(matches!(array, Err(Error::Value(_))));
    };
    refused(rows(&x, 5));
    refused(TiledArray::new(StorageView::read(&x), Layout::Groups(0), 6));
    refused(TiledArray::new(
        StorageView::read(&x),
        Layout::Groups(4),
        24 + 1,
    ));
    for axes in [
        vec![[2, 0], [4, 1]],
        vec![[7, 1]],
        vec![[6, 2]],
        vec![[3, 1], [6, 1]],
    ] {
        refused(TiledArray::new(
            StorageView::read(&x),
            Layout::Broadcast(axes),
            6,
        ));
    }
    let columns = |classes, positions| Layout::Columns { classes, positions };
    refused(TiledArray::new(StorageView::read(&x), columns(0, 3), 6));
    refused(TiledArray::new(StorageView::read(&x), columns(4, 1), 6));

    let mut evaluate = |input: Layout, target: &[f64], writable: bool| {
        let view = StorageView::read(&x);
        let input = TiledArray::new(view, input, 6).expect("a good length");
        let gradient = if writable {
            StorageView::native(&mut out)
        } else {
            StorageView::read(&x)
        };
        Kind::Mse
            .loss(&[])
            .expect("good arguments")
            .evaluate_tiled(TiledCall {
                inputs: vec![TiledInput::Gradient(input, gradient)],
                target: Some(TiledTarget::Numbers(
                    rows(target, target.len()).expect("its length"),
                )),
                weights: [None, None],
                shape: [6, 1],
                ignore_index: None,
                reduction: TiledReduction::Sum,
                loss_scale: 1.0,
            })
    };
    assert_eq!(evaluate(Layout::Rows, &x, true), Ok(0.0));
    for result in [
        evaluate(Layout::Rows, &y, true),
        evaluate(Layout::Rows, &x, false),
        evaluate(columns(3, 2), &x, true),
        evaluate(Layout::Broadcast(vec![[6, 1]]), &x, true),
    ] {
        assert!(matches!(result, Err(Error::Value(_))), "{result:?}");
    }
}
