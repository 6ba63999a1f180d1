//! Optimizers, losses and norms on many threads at the same time, with changing thread counts. All
//! results are bitwise identical to those of one thread. Sanitizers are most effective on this
//! test.

mod cases;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use cases::Precision;
use fastoptim::exec::pool::{self, with_threads};
use fastoptim::loss::cross_entropy::CrossEntropy;
use fastoptim::loss::{Call, Input, Loss, Reduction, Target};
use fastoptim::ops::clip::total_norm;
use fastoptim::optim::{Kind, Method};
use fastoptim::step::Options;
use fastoptim::storage::view::StorageView;

/// The number of threads that call at the same time.
const CALLERS: usize = if cfg!(miri) { 2 } else { 4 };

/// The lengths of two arrays, large enough for a step to use several threads.
const LENGTHS: [usize; 2] = if cfg!(miri) {
    [33, 600]
} else {
    [1_030, 270_000]
};

/// The number of times that a caller makes all calls.
const ROUNDS: usize = if cfg!(miri) { 1 } else { 3 };

/// Returns one configuration of every optimizer.
fn methods() -> Vec<Method> {
    let mut methods = cases::methods();
    methods.dedup_by_key(|method| std::mem::discriminant(method));
    assert_eq!(methods.len(), Kind::ALL.len());
    methods
}

fn optimizer<T: Precision>(method: &Method, options: &Options) -> u64 {
    hash(
        cases::run::<T>(method, &LENGTHS, options)
            .concat()
            .iter()
            .map(|x| x.to_f64()),
    )
}

fn loss() -> u64 {
    let (rows, classes) = (if cfg!(miri) { 40 } else { 3_000 }, 30);
    let x = cases::numbers(rows * classes, 5);
    let target: Vec<i64> = (0..rows).map(|row| (row % classes) as i64).collect();
    let mut gradient = vec![0.0; x.len()];
    let value = CrossEntropy {
        label_smoothing: 0.1,
    }
    .evaluate(Call {
        shape: [rows, classes],
        ..Call::new(
            vec![Input::Gradient(&x, &mut gradient)],
            Some(Target::Integers(&target)),
            Reduction::Mean,
        )
    })
    .expect("classes are in range");
    hash(gradient.into_iter().chain([value]))
}

fn norm() -> u64 {
    let x = cases::numbers(if cfg!(miri) { 600 } else { 300_000 }, 6);
    hash(
        [1.0, 2.0, 3.0]
            .map(|p| total_norm(&[StorageView::read(&x).into()], p))
            .into_iter(),
    )
}

fn hash(numbers: impl Iterator<Item = f64>) -> u64 {
    numbers.fold(0, |hash: u64, x| {
        (hash.rotate_left(5) ^ x.to_bits()).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    })
}

/// Returns all calls. Each returns a hash of its results.
fn calls() -> Vec<Box<dyn Fn() -> u64 + Sync>> {
    let clipped = Options {
        loss_scale: 2.0,
        clip_value: Some(0.3),
        ..Options::DEFAULT
    };
    let mut calls: Vec<Box<dyn Fn() -> u64 + Sync>> = vec![Box::new(loss), Box::new(norm)];
    for (index, method) in methods().into_iter().enumerate() {
        let options = [Options::DEFAULT, clipped][index % 2];
        if index % 3 == 0 {
            calls.push(Box::new(move || optimizer::<f64>(&method, &options)));
        } else {
            calls.push(Box::new(move || optimizer::<f32>(&method, &options)));
        }
    }
    calls
}

#[test]
fn concurrent_callers_compute_the_same_as_one() {
    let calls = calls();
    let expected: Vec<u64> = with_threads(1, || calls.iter().map(|call| call()).collect());
    let (start, done) = (Barrier::new(CALLERS), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The thread count of the process changes during calls.
        scope.spawn(|| {
            for n in (1..=9).cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                pool::set_count(n);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let caller = |caller: usize| {
            start.wait();
            for round in 0..ROUNDS {
                for step in 0..calls.len() {
                    // Callers make the same calls in some rounds and different calls in others.
                    let index = (step + round * caller) % calls.len();
                    let found = match (step + caller) % 3 {
                        0 => calls[index](),
                        1 => with_threads(1 + (step + round) % 6, || calls[index]()),
                        _ => nested(&*calls[index]),
                    };
                    assert_eq!(found, expected[index], "call {index}");
                }
            }
        };
        let callers: Vec<_> = (0..CALLERS)
            .map(|index| scope.spawn(move || caller(index)))
            .collect();
        let outcomes: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        done.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.expect("no caller panics");
        }
    });
}

/// Makes a call on every thread of a pool at the same time and returns their common result.
fn nested(call: &(dyn Fn() -> u64 + Sync)) -> u64 {
    let found: Vec<_> = (0..3).map(|_| std::sync::OnceLock::new()).collect();
    with_threads(3, || {
        pool::run(found.len(), usize::MAX, |index| {
            found[index].set(call()).expect("each index runs once");
        });
    });
    let first = *found[0].get().expect("each index has run");
    assert!(found.iter().all(|x| x.get() == Some(&first)));
    first
}
