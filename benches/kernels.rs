//! Benchmarks of kernels with arrays in L1, L2, the last-level cache and memory, of a stream over
//! as many arrays, and of the arithmetic of each rule. Run with `cargo bench`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastoptim::exec::ceiling::{self, Access};
use fastoptim::exec::isa::{self, Tier};
use fastoptim::exec::pool;
use fastoptim::loss::cross_entropy::CrossEntropy;
use fastoptim::loss::mse::Mse;
use fastoptim::loss::{Call, Input, Loss, Reduction, Target};
use fastoptim::numeric::scale::ScaleFactor;
use fastoptim::ops::clip::{clamp, scale, total_norm};
use fastoptim::optim::hyper::Value::{Flag, Number, Numbers, Word};
use fastoptim::optim::{Kind, Method};
use fastoptim::step::{self, GroupSegments, Local, Options, Segment, StepContext};
use fastoptim::storage::view::StorageView;

/// Numbers of elements for L1, L2, the last-level cache, and four times a cache of 32 MiB.
const SIZES: [usize; 4] = [1 << 10, 1 << 15, 1 << 20, 1 << 25];

fn methods() -> Vec<(&'static str, Method)> {
    let adam = |amsgrad, cautious| {
        let betas = Numbers(vec![0.9, 0.999]);
        let flags = [Flag(amsgrad), Flag(true), Flag(cautious)];
        [
            vec![Number(1e-3), betas, Number(1e-8), Number(0.01)],
            flags.to_vec(),
        ]
        .concat()
    };
    let sgd = |momentum| {
        let rates = [Number(1e-3), Number(momentum), Number(0.0), Number(0.0)];
        [
            rates.to_vec(),
            vec![Flag(false), Word("outside".to_owned())],
        ]
        .concat()
    };
    let lion = vec![
        Number(1e-4),
        Numbers(vec![0.9, 0.99]),
        Number(0.0),
        Flag(false),
    ];
    let rmsprop = [1e-2, 0.99, 1e-8, 0.0, 0.0].map(Number).to_vec();
    [
        ("sgd", Kind::SGD.method(&sgd(0.0))),
        ("momentum", Kind::SGD.method(&sgd(0.9))),
        ("adamw", Kind::Adam.method(&adam(false, false))),
        ("amsgrad", Kind::Adam.method(&adam(true, false))),
        ("cautious adamw", Kind::Adam.method(&adam(false, true))),
        ("lion", Kind::Lion.method(&lion)),
        (
            "rmsprop",
            Kind::RMSprop.method(&[rmsprop, vec![Flag(false); 2]].concat()),
        ),
    ]
    .map(|(name, method)| (name, method.expect("in range")))
    .into()
}

/// Calls `run` on every tier but the baseline, unless the processor has no other.
fn on_tiers(mut run: impl FnMut(Tier)) {
    let tiers = Tier::supported();
    for &tier in &tiers[usize::from(tiers.len() > 1)..] {
        isa::with_tier(tier, || run(tier)).expect("supported");
    }
}

fn optimizers(c: &mut Criterion) {
    on_tiers(|tier| steps(c, tier));
}

fn steps(c: &mut Criterion, tier: Tier) {
    for n in SIZES {
        let mut group = c.benchmark_group(format!("step on {tier}"));
        let g = vec![1e-3_f32; n];
        let shape = [n];
        for (name, method) in methods() {
            let slots = method.state(1).len();
            let mut p = vec![1.0_f32; n];
            let mut state = vec![vec![0.0_f32; n]; slots];
            group.throughput(Throughput::Bytes((4 * n * (3 + 2 * slots)) as u64));
            group.bench_function(BenchmarkId::new(name, n), |b| {
                b.iter(|| {
                    let state = state.iter_mut().map(Vec::as_mut_slice);
                    let context = StepContext {
                        step: 10,
                        ..StepContext::default()
                    };
                    let segment = Segment::native(&mut p, &g, &shape, state, context);
                    let group = GroupSegments {
                        single: vec![segment],
                        ..GroupSegments::new(&method)
                    };
                    step::run(&mut [group], &Options::default(), &Local).expect("in range")
                });
            });
            // Beyond the caches, the stream is the ceiling.
            if n <= 1 << 20 {
                let name = format!("arithmetic of {name}");
                group.bench_function(BenchmarkId::new(name, n), |b| {
                    b.iter_custom(|passes| {
                        let elements = n * usize::try_from(passes).expect("as many as a usize");
                        method
                            .arithmetic::<f32>(elements, pool::count())
                            .expect("a rule over elements")
                    });
                });
            }
        }
        for others in 0..4 {
            // Written first, because reads of untouched pages of zeros come from one page in a
            // cache.
            let mut arrays = vec![vec![1_u32; n]; others + 2];
            group.throughput(Throughput::Bytes((4 * n * (3 + 2 * others)) as u64));
            let name = format!("stream of {} reads and {} writes", others + 2, others + 1);
            group.bench_function(BenchmarkId::new(name, n), |b| {
                b.iter_custom(|passes| {
                    let (read, updated) = arrays.split_first_mut().expect("at least one array");
                    let updated = updated.iter_mut().map(|words| Access::Update(words));
                    let accesses = updated.chain([Access::Read(read)]).collect();
                    let passes = u32::try_from(passes).expect("below 2^32");
                    ceiling::pass(accesses, pool::count(), passes).expect("threads") * passes
                });
            });
        }
        group.finish();
    }
}

fn clipping(c: &mut Criterion) {
    on_tiers(|tier| clips(c, tier));
}

fn clips(c: &mut Criterion, tier: Tier) {
    for n in SIZES {
        let mut group = c.benchmark_group(format!("clip on {tier}"));
        let mut g = vec![1e-3_f32; n];
        group.throughput(Throughput::Bytes(4 * n as u64));
        group.bench_function(BenchmarkId::new("norm", n), |b| {
            b.iter(|| total_norm(black_box(&[StorageView::read(&g).into()]), 2.0));
        });
        group.throughput(Throughput::Bytes(8 * n as u64));
        group.bench_function(BenchmarkId::new("scale", n), |b| {
            b.iter(|| {
                scale(
                    &mut [StorageView::native(&mut g).into()],
                    ScaleFactor::quotient(0.999_999, 1.0),
                )
            });
        });
        group.bench_function(BenchmarkId::new("clamp", n), |b| {
            b.iter(|| clamp(&mut [StorageView::native(&mut g).into()], 1.0));
        });
        group.finish();
    }
}

fn losses(c: &mut Criterion) {
    on_tiers(|tier| losses_on(c, tier));
}

fn losses_on(c: &mut Criterion, tier: Tier) {
    let mut group = c.benchmark_group(format!("loss on {tier}"));
    for n in SIZES {
        let (x, y) = (vec![0.5_f32; n], vec![0.25_f32; n]);
        let mut out = vec![0.0_f32; n];
        group.throughput(Throughput::Bytes(12 * n as u64));
        group.bench_function(BenchmarkId::new("mse", n), |b| {
            b.iter(|| {
                let inputs = vec![Input::Gradient(&x, &mut out)];
                let target = Some(Target::Numbers(&y));
                Mse.evaluate(Call::new(inputs, target, Reduction::Mean))
            });
        });
    }
    for (rows, classes) in [(128, 10), (65_536, 10), (8192, 1000), (1024, 32_000)] {
        let n = rows * classes;
        let x: Vec<f32> = (0..n).map(|i| (i % 1009) as f32 / 100.0).collect();
        let labels: Vec<i64> = (0..rows).map(|i| (i * 7 % classes) as i64).collect();
        let mut out = vec![0.0_f32; n];
        for smoothing in [0.0, 0.1] {
            let loss = CrossEntropy {
                label_smoothing: smoothing,
            };
            let name = format!("cross-entropy, smoothing {smoothing}");
            group.throughput(Throughput::Bytes(12 * n as u64));
            group.bench_function(BenchmarkId::new(name, format!("{rows} x {classes}")), |b| {
                b.iter(|| {
                    let inputs = vec![Input::Gradient(&x, &mut out)];
                    let target = Some(Target::Integers(&labels));
                    loss.evaluate(Call {
                        shape: [rows, classes],
                        ..Call::new(inputs, target, Reduction::Mean)
                    })
                });
            });
        }
    }
    group.finish();
}

/// Each benchmark takes two seconds: there are about 200 with the tiers.
fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20)
}

criterion_group! {
    name = benches;
    config = brief();
    targets = optimizers, clipping, losses
}
criterion_main!(benches);
