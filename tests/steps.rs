//! Whole steps: sharding over processes, gradients that are not finite, and declarations of state.

#[expect(dead_code, reason = "used by other tests")]
mod cases;

use std::sync::{Barrier, Mutex};

use cases::Precision;
use fastoptim::error::{Error, Result};
use fastoptim::ops::penalty::Penalty;
use fastoptim::optim::{Kind, Method, Role, StateSpec};
use fastoptim::step::{
    self, AllReduce, GroupSegments, Local, Nonfinite, Options, Progress, Regularization, Segment,
    StepOutcome,
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

/// Runs three steps on the parameters of one process and returns the norms.
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
        norms.push(outcome.norm.expect("max_norm is set"));
    }
    norms
}

/// The shared memory of two threads that stand for two processes.
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

/// Calls `process` on two threads that stand for two processes.
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
fn a_sharded_step_equals_the_step_of_one_process() {
    shards_agree::<f32>();
    shards_agree::<f64>();
}

/// Runs one step of gradient descent from 1 on gradients `g`.
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
fn a_gradient_that_is_not_finite_prevents_the_step_of_every_process() {
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

/// One step of gradient descent by 0.5 from 1 on a gradient of 4 in each group, which has a
/// regularization of its own or none: the norm, and the parameters.
fn regularized(
    own: &[Option<Regularization>],
    default: Regularization,
    ranks: &dyn AllReduce,
) -> (f64, Vec<f32>) {
    let method = Kind::SGD.method(&sgd()).expect("in range");
    let mut p = vec![1.0; own.len()];
    let context = Progress::new(&method).context(true);
    let groups = p.iter_mut().zip(own).map(|(p, own)| GroupSegments {
        regularization: *own,
        single: vec![Segment::native(
            std::slice::from_mut(p),
            &[4.0],
            &[1],
            [],
            context,
        )],
        ..GroupSegments::new(&method)
    });
    let options = Options {
        loss_scale: 4.0,
        max_norm: Some(f64::INFINITY),
        regularization: default,
        ..Options::DEFAULT
    };
    let outcome = step::run(groups.collect(), &options, ranks).expect("in range");
    (outcome.norm.expect("asked for"), p)
}

#[test]
fn groups_with_a_regularization_of_their_own_share_one_norm() {
    let ridge = Regularization {
        penalty: Penalty { l1: 0.0, l2: 1.0 },
        shrinkage: 0.0,
    };
    let shrunk = Regularization {
        shrinkage: 1.0,
        ..ridge
    };
    let own = [Some(Regularization::NONE), None, Some(ridge), Some(shrunk)];
    // Gradients of 1, and of 3 with the penalty.
    let (norm, p) = regularized(&own, Regularization::NONE, &Local);
    assert_eq!((norm, p), (20_f64.sqrt(), vec![0.5, 0.5, -0.5, 0.0]));
    let (norm, p) = regularized(&own, ridge, &Local);
    assert_eq!((norm, p), (28_f64.sqrt(), vec![0.5, -0.5, -0.5, 0.0]));
    // A process that has no penalty of its own measures as the others do.
    let found = on_two_ranks(|rank, ranks| {
        let own = [own[2 * rank], own[2 * rank + 1]];
        regularized(&own, Regularization::NONE, ranks)
    });
    let [first, second] = found.map(|(norm, p)| (norm, p));
    assert_eq!(first, (20_f64.sqrt(), vec![0.5, 0.5]));
    assert_eq!(second, (20_f64.sqrt(), vec![-0.5, 0.0]));
}

#[test]
fn shrinking_without_a_learning_rate_is_refused() {
    let shrunk = Regularization {
        shrinkage: 1.0,
        ..Regularization::NONE
    };
    for method in cases::methods() {
        let kind = format!("{method:?}");
        let without = ["ASGD", "Rprop", "ScheduleFree"];
        let refused = without.iter().any(|name| kind.starts_with(name));
        assert_eq!(method.check_regularization(&shrunk).is_err(), refused);
        for group in [Some(shrunk), None] {
            let groups = vec![GroupSegments {
                regularization: group,
                ..GroupSegments::new(&method)
            }];
            let options = Options {
                regularization: shrunk,
                ..Options::DEFAULT
            };
            let found = step::run(groups, &options, &Local);
            assert_eq!(found.is_err(), refused, "{kind}");
        }
    }
}

#[test]
fn a_skipped_step_is_not_counted() {
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
            // Averages are computed from the first array.
            if method.averaging().is_some() {
                assert_eq!(specs[0].role, Role::Iterate, "{method:?}");
            }
            for spec in specs.iter().filter(|spec| spec.role == Role::SecondMoment) {
                assert!(spec.non_negative, "{}", spec.name);
            }
        }
    }
}
