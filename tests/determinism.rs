//! Results are bitwise identical for every tier, thread count and division into segments.

mod cases;
mod low_precision;

use cases::Precision;
use fastoptim::exec::isa::{Tier, with_tier};
use fastoptim::exec::pool::with_threads;
use fastoptim::ops::clip::total_norm;
use fastoptim::optim::Method;
use fastoptim::step::Options;
use fastoptim::storage::view::StorageView;

fn bits<T: Precision>(arrays: &[Vec<T>]) -> Vec<u64> {
    arrays
        .iter()
        .flatten()
        .map(|x| x.to_f64().to_bits())
        .collect()
}

/// The lengths of arrays. Fewer and smaller ones under Miri, where arrays of some hundred elements
/// have several chunks.
fn lengths() -> Vec<usize> {
    if cfg!(miri) {
        return vec![0, 33];
    }
    let around = |k: u32| [-3_i64, -1, 0, 1, 3].map(|d| ((1_i64 << k) + d) as usize);
    if cases::slow() {
        return [0, 1, 31, 33, 257].into_iter().chain(around(10)).collect();
    }
    (0..=257).chain((9..=15).flat_map(around)).collect()
}

/// Only every seventh configuration is tested in low precision under Miri.
const STRIDE: usize = if cfg!(miri) { 7 } else { 1 };

/// Gradients without a prologue, and with unscaling and clipping by value.
const PREPARATIONS: [Options; 2] = [
    Options::DEFAULT,
    Options {
        loss_scale: 2.0,
        clip_value: Some(0.3),
        ..Options::DEFAULT
    },
];

/// Gradients with unscaling, clipping by value and clipping by norm.
const CLIPPED: Options = Options {
    max_norm: Some(0.2),
    ..PREPARATIONS[1]
};

fn tiers_agree<T: Precision>(options: &Options, lengths: &[usize]) {
    for method in cases::methods() {
        for &n in lengths {
            let run = || bits(&cases::run::<T>(&method, &[n], options));
            let expected = with_tier(Tier::Baseline, run).expect("the baseline is supported");
            for tier in Tier::supported() {
                let got = with_tier(tier, run).expect("supported");
                assert!(got == expected, "{method:?} differs at {n} on {tier}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri has one tier")]
fn tiers_agree_on_f32() {
    tiers_agree::<f32>(&Options::DEFAULT, &lengths());
}

#[test]
#[cfg_attr(miri, ignore = "Miri has one tier")]
fn tiers_agree_on_f64() {
    let most = if cases::slow() { 3 } else { 67 };
    let lengths: Vec<usize> = (0..=most).chain([1023, 1025, 33_000]).collect();
    tiers_agree::<f64>(&Options::DEFAULT, &lengths);
}

#[test]
#[cfg_attr(miri, ignore = "Miri has one tier")]
fn tiers_agree_on_prepared_gradients() {
    tiers_agree::<f32>(&CLIPPED, &[1, 31, 1023, 1024, 1025, 4099, 33_000]);
}

#[test]
fn threads_and_segments_agree() {
    let (n, parts, counts, skipped) = if cfg!(miri) {
        (301, [1, 0, 33, 267], &[2][..], 1)
    } else if cases::slow() {
        (270_001, [1, 0, 9_999, 180_001], &[1, 2, 3, 64][..], 0)
    } else {
        (300_001, [1, 0, 9_999, 200_001], &[1, 2, 3, 64][..], 0)
    };
    for method in cases::methods().into_iter().step_by(1 + skipped) {
        for options in [Options::DEFAULT, CLIPPED].into_iter().skip(skipped) {
            let run = |lengths: &[usize]| bits(&cases::run::<f32>(&method, lengths, &options));
            let expected = with_threads(1, || run(&[n]));
            for &threads in counts {
                assert!(
                    with_threads(threads, || run(&[n])) == expected,
                    "{method:?}"
                );
                let apart = with_threads(1, || run(&parts));
                assert!(with_threads(threads, || run(&parts)) == apart, "{method:?}");
            }
        }
    }
}

#[test]
fn tiers_and_threads_agree_in_low_precision() {
    for method in cases::methods().into_iter().step_by(STRIDE) {
        let lengths = if cfg!(miri) {
            &[301][..]
        } else {
            &[1, 255, 257, 1025, 40_001]
        };
        for (n, options) in lengths
            .iter()
            .flat_map(|&n| [Options::DEFAULT, CLIPPED].map(|options| (n, options)))
        {
            let run = || low_precision::run(&method, &[(0, n)], &options);
            let expected = with_threads(1, || with_tier(Tier::Baseline, run))
                .expect("the baseline is supported");
            for tier in Tier::supported() {
                let got = with_threads(3, || with_tier(tier, run)).expect("supported");
                assert!(got == expected, "{method:?} differs at {n} on {tier}");
            }
        }
    }
}

/// Blocks of 256 elements share a scale, so a block must not be divided between two chunks.
#[test]
fn results_in_low_precision_do_not_depend_on_other_parameters() {
    let lengths = if cfg!(miri) {
        [300, 0, 7, 260]
    } else {
        [300, 20_000, 7, 17_000]
    };
    let parameters: Vec<_> = lengths.into_iter().enumerate().collect();
    // All parameters share the step size of Prodigy.
    for method in cases::methods().into_iter().step_by(STRIDE) {
        if matches!(method, Method::Prodigy(_)) {
            continue;
        }
        for options in PREPARATIONS.iter().skip(usize::from(cfg!(miri))) {
            let together = with_threads(2, || low_precision::run(&method, &parameters, options));
            for (&parameter, found) in parameters.iter().zip(together) {
                let alone = low_precision::run(&method, &[parameter], options);
                assert!(alone == [found], "{method:?} differs at {parameter:?}");
            }
        }
    }
}

#[test]
fn norms_agree() {
    let large = if cfg!(miri) { 2_100 } else { 1_100_003 };
    for n in lengths().into_iter().chain([large]) {
        let double = cases::numbers(n, 7);
        let single: Vec<f32> = double.iter().map(|&x| x as f32).collect();
        for norm_type in [1.0, 2.0, 3.0, f64::INFINITY] {
            let run = || {
                [
                    StorageView::read(&single).into(),
                    StorageView::read(&double).into(),
                ]
                .map(|array| total_norm(&[array], norm_type).to_bits())
            };
            let expected = with_threads(1, run);
            for tier in Tier::supported() {
                for threads in [1, 2, 3, 64]
                    .into_iter()
                    .skip(if cfg!(miri) { 3 } else { 0 })
                {
                    let got = with_tier(tier, || with_threads(threads, run)).expect("supported");
                    assert_eq!(got, expected, "norm {norm_type} of {n} on {tier}");
                }
            }
        }
    }
}
