//! Every kernel in L1, L2, last-level cache and memory, beside an in-place stream of the same
//! arrays: `cargo bench`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastoptim::clip::{Array, total_norm};
use fastoptim::hyper::Value::{Flag, Number, Numbers, Word};
use fastoptim::isa::{Kernel, current};
use fastoptim::optim::{Kind, Method};
use fastoptim::prepare::Prepare;
use fastoptim::segment::{Clock, Segment};
use fastoptim::threads;
use fastoptim::work;

/// Elements: L1, L2, last-level cache, and four times a cache of 32 MiB.
const SIZES: [usize; 4] = [1 << 10, 1 << 15, 1 << 20, 1 << 25];

fn methods() -> Vec<(&'static str, Method)> {
    let adam = |amsgrad| {
        [
            Number(1e-3),
            Numbers(vec![0.9, 0.999]),
            Number(1e-8),
            Number(0.01),
            Flag(amsgrad),
            Flag(true),
            Flag(false),
        ]
    };
    let sgd = |momentum| {
        let form = Word("outside".to_owned());
        [
            Number(1e-3),
            Number(momentum),
            Number(0.0),
            Number(0.0),
            Flag(false),
            form,
        ]
    };
    [
        ("sgd", Kind::SGD.method(&sgd(0.0))),
        ("momentum", Kind::SGD.method(&sgd(0.9))),
        ("adamw", Kind::Adam.method(&adam(false))),
        ("amsgrad", Kind::Adam.method(&adam(true))),
    ]
    .map(|(name, method)| (name, method.expect("in range")))
    .into()
}

/// Reads `reads` arrays and writes the first `reads - 1` in place: the least an optimizer does.
struct Stream<'a> {
    written: Vec<&'a mut [f32]>,
    read: &'a [f32],
}

impl Kernel for Stream<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.read.len();
        match { self.written }.as_mut_slice() {
            [a, b, c] => {
                let (a, b, c) = (&mut a[..n], &mut b[..n], &mut c[..n]);
                for i in 0..n {
                    let x = self.read[i];
                    a[i] += x;
                    b[i] += x;
                    c[i] += x;
                }
            }
            written => {
                for array in written {
                    for i in 0..n {
                        array[i] += self.read[i];
                    }
                }
            }
        }
    }
}

fn stream(written: &mut [Vec<f32>], read: &[f32]) {
    const CHUNK: usize = 16 * 1024;
    let n = read.len();
    let tier = current();
    let bases: Vec<std::sync::atomic::AtomicPtr<f32>> = written
        .iter_mut()
        .map(|array| array.as_mut_ptr().into())
        .collect();
    threads::run(n.div_ceil(CHUNK), n, |chunk| {
        let (from, to) = (chunk * CHUNK, n.min((chunk + 1) * CHUNK));
        let written = bases
            .iter()
            .map(|base| {
                let base = base.load(std::sync::atomic::Ordering::Relaxed);
                // SAFETY: chunks do not overlap and each runs once.
                unsafe { std::slice::from_raw_parts_mut(base.add(from), to - from) }
            })
            .collect();
        tier.run(Stream {
            written,
            read: &read[from..to],
        });
    });
}

fn optimizers(c: &mut Criterion) {
    for n in SIZES {
        let mut group = c.benchmark_group("step");
        let g = vec![1e-3_f32; n];
        for (name, method) in methods() {
            let slots = method.state(1).len();
            let shape = [n];
            let mut p = vec![1.0_f32; n];
            let mut state = vec![vec![0.0_f32; n]; slots];
            group.throughput(Throughput::Bytes((4 * n * (3 + 2 * slots)) as u64));
            group.bench_function(BenchmarkId::new(name, n), |b| {
                b.iter(|| {
                    let state = state.iter_mut().map(Vec::as_mut_slice);
                    let clock = Clock {
                        step: 10,
                        ..Clock::default()
                    };
                    let segment = Segment::new(&mut p, &g, &shape, state, clock);
                    work::run(vec![method.plan(vec![segment], Prepare::default())]);
                });
            });
        }
        let mut written = vec![vec![0.0_f32; n]; 3];
        group.throughput(Throughput::Bytes(28 * n as u64));
        group.bench_function(
            BenchmarkId::new("ceiling of 4 reads and 3 writes", n),
            |b| {
                b.iter(|| stream(&mut written, &g));
            },
        );
        group.throughput(Throughput::Bytes(4 * n as u64));
        group.bench_function(BenchmarkId::new("norm", n), |b| {
            b.iter(|| total_norm(black_box(&[Array::F32(&g)]), 2.0));
        });
        group.finish();
    }
}

criterion_group!(benches, optimizers);
criterion_main!(benches);
