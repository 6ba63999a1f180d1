//! Whole steps: sharded over processes, refused, and the state that they declare.

#[expect(dead_code, reason = "other tests run them")]
mod cases;

use std::sync::{Barrier, Mutex};

use cases::Precision;
use fastoptim::error::{Error, Result};
use fastoptim::optim::{Kind, Method, Role, StateSpec};
use fastoptim::step::{
    self, AllReduce, GroupSegments, Local, Nonfinite, Options, Progress, Segment, StepOutcome,
};

const N: usize = 40;

/// One parameter of `N` elements, with its state and its progress.
struct Parameter<T> {
    index: usize,
    p: Vec<T>,
    state: Vec<Vec<T>>,
    progress: Progress,
}

impl<T: Precision> Parameter<T> {
    fn new(method: &Method, index: usize) -> Self {
        let shape = cases::shape(method, N);
        let size = |spec: &StateSpec| method.state_shape(spec.name, &shape).iter().product();
        let specs = method.state(shape.len()).iter();
        Self {
            index,
            p: cast(cases::numbers(N, 1 + index as u64)),
            state: specs.map(|spec| vec![T::ZERO; size(spec)]).collect(),
            progress: Progress::new(method),
        }
    }

    fn bits(&self) -> Vec<u64> {
        let numbers = self.p.iter().chain(self.state.iter().flatten());
        let scalars = self.progress.scalars.into_iter();
        let numbers = numbers.map(|x| x.to_f64()).chain(scalars);
        numbers.map(f64::to_bits).collect()
    }
}

fn cast<T: Precision>(numbers: Vec<f64>) -> Vec<T> {
    numbers.into_iter().map(T::from_f64).collect()
}

/// Three steps of the parameters that one process has.
fn steps<T: Precision>(
    method: &Method,
    parameters: &mut [Parameter<T>],
    ranks: &dyn AllReduce,
) -> Vec<f64> {
    let shape = cases::shape(method, N);
    let options = Options {
        max_norm: Some(0.5),
        nonfinite: Nonfinite::Skip,
        ..Options::DEFAULT
    };
    let mut norms = Vec::new();
    for t in 1..=3 {
        let gradient = |index: usize| cast(cases::numbers(N, 10 * t + index as u64));
        let gradients: Vec<Vec<T>> = parameters.iter().map(|one| gradient(one.index)).collect();
        let mut segments = Vec::new();
        for (one, g) in parameters.iter_mut().zip(&gradients) {
            let context = one.progress.context(t == 1);
            let state = one.state.iter_mut().map(Vec::as_mut_slice);
            let segment = Segment::native(&mut one.p, g, &shape, state, context);
            segments.push(segment.numbered(one.index));
        }
        let group = T::group(method, segments);
        let outcome = step::run(vec![group], &options, ranks).expect("options are in range");
        for one in parameters.iter_mut() {
            let context = one.progress.context(t == 1);
            outcome.write_back(method, Some(context), &mut one.progress);
        }
        norms.push(outcome.norm.expect("max_norm asks for it"));
    }
    norms
}

/// Two processes that are threads.
struct Shared {
    barrier: Barrier,
    numbers: [Mutex<[f64; 2]>; 2],
}

struct Rank<'a>(usize, &'a Shared);

impl Rank<'_> {
    fn exchange(&self, own: [f64; 2]) -> [[f64; 2]; 2] {
        let Self(rank, shared) = self;
        *shared.numbers[*rank].lock().expect("no thread panics") = own;
        shared.barrier.wait();
        let all = [0, 1].map(|rank: usize| *shared.numbers[rank].lock().expect("no thread panics"));
        shared.barrier.wait();
        all
    }
}

impl AllReduce for Rank<'_> {
    fn sum(&self, own: [f64; 2]) -> [f64; 2] {
        let [a, b] = self.exchange(own);
        [a[0] + b[0], a[1] + b[1]]
    }

    fn max(&self, own: f64) -> f64 {
        let [a, b] = self.exchange([own, 0.0]);
        a[0].max(b[0])
    }
}

/// Calls `process` in two processes.
fn on_two_ranks<R: Send>(process: impl Fn(usize, &dyn AllReduce) -> R + Sync) -> [R; 2] {
    let shared = Shared {
        barrier: Barrier::new(2),
        numbers: Default::default(),
    };
    std::thread::scope(|scope| {
        let call = |rank| {
            let (shared, process) = (&shared, &process);
            scope.spawn(move || process(rank, &Rank(rank, shared)))
        };
        [call(0), call(1)].map(|thread| thread.join().expect("no thread panics"))
    })
}

fn shards_agree<T: Precision + Send>() {
    for method in cases::methods() {
        let mut parameters = [0, 1].map(|index| Parameter::<T>::new(&method, index));
        let norms = steps(&method, &mut parameters, &Local);
        let shards = on_two_ranks(|rank, ranks| {
            let mut own = [Parameter::<T>::new(&method, rank)];
            let norms = steps(&method, &mut own, ranks);
            (own[0].bits(), norms)
        });
        for (parameter, (bits, shard)) in parameters.iter().zip(shards) {
            assert_eq!(shard, norms, "{method:?}");
            assert!(bits == parameter.bits(), "{method:?}");
        }
    }
}

#[test]
fn a_sharded_step_is_the_step_of_one_process() {
    shards_agree::<f32>();
    shards_agree::<f64>();
}

/// One step of gradient descent from 1 on gradients `g`.
fn descent(
    g: &[f32; 2],
    nonfinite: Nonfinite,
    ranks: &dyn AllReduce,
) -> (Result<StepOutcome>, [f32; 2]) {
    let method = Kind::SGD.method(&sgd()).expect("in range");
    let mut p = [1.0; 2];
    let context = Progress::new(&method).context(true);
    let segment = Segment::native(&mut p, g, &[2], [], context).numbered(7);
    let group = GroupSegments {
        single: vec![segment],
        ..GroupSegments::new(&method)
    };
    let options = Options {
        nonfinite,
        ..Options::DEFAULT
    };
    (step::run(vec![group], &options, ranks), p)
}

fn sgd() -> Vec<fastoptim::optim::hyper::Value> {
    use fastoptim::optim::hyper::Value::{Flag, Number, Word};
    let numbers = [0.5, 0.0, 0.0, 0.0].map(Number).into_iter();
    numbers
        .chain([Flag(false), Word("outside".to_owned())])
        .collect()
}

#[test]
fn a_gradient_that_is_not_finite_ends_the_step_of_every_process() {
    let gradients = [[1.0, 2.0], [1.0, f32::INFINITY]];
    let found = on_two_ranks(|rank, ranks| descent(&gradients[rank], Nonfinite::Skip, ranks));
    for (outcome, p) in found {
        assert!(!outcome.expect("skipped").applied);
        assert_eq!(p, [1.0; 2]);
    }
    let found = on_two_ranks(|rank, ranks| descent(&gradients[rank], Nonfinite::Raise, ranks));
    for ((outcome, p), index) in found.into_iter().zip([None, Some(7)]) {
        assert_eq!(outcome.map(|_| ()), Err(Error::NotFinite(index)));
        assert_eq!(p, [1.0; 2]);
    }
    let (outcome, p) = descent(&gradients[1], Nonfinite::Propagate, &Local);
    assert!(outcome.expect("applied").applied);
    assert_eq!(p, [0.5, f32::NEG_INFINITY]);
}

#[test]
fn a_step_that_is_skipped_counts_nothing() {
    let method = Kind::SGD.method(&sgd()).expect("in range");
    for (g, steps) in [([1.0, f32::NAN], 0), ([1.0, 2.0], 1)] {
        let (outcome, _) = descent(&g, Nonfinite::Skip, &Local);
        let mut progress = Progress::new(&method);
        let context = progress.context(true);
        let outcome = outcome.expect("skipped or applied");
        outcome.write_back(&method, Some(context), &mut progress);
        assert_eq!(progress.steps, steps);
    }
}

#[test]
fn state_arrays_are_declared_consistently() {
    for method in cases::methods() {
        let optional = method.optional_state();
        for rank in 1..=3 {
            let specs = method.state(rank);
            for (index, spec) in specs.iter().enumerate() {
                let same = |other: &&StateSpec| other.name == spec.name;
                assert!(!specs[..index].iter().any(|other| same(&other)));
                assert!(optional.iter().find(same).is_none_or(|other| other == spec));
            }
            // Averages are taken of the first array.
            if method.averaging().is_some() {
                assert_eq!(specs[0].role, Role::Iterate, "{method:?}");
            }
            for spec in specs.iter().filter(|spec| spec.role == Role::SecondMoment) {
                assert!(spec.non_negative, "{}", spec.name);
            }
        }
    }
}
