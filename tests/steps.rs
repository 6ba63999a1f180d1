//! Whole steps: sharding over processes, gradients that are not finite, and declarations of state.

#[expect(dead_code, reason = "used by other tests")]
mod cases;

use std::ops::Range;
use std::sync::{Barrier, Mutex};

use cases::Precision;
use fastoptim::error::{Error, Result};
use fastoptim::ops::penalty::Penalty;
use fastoptim::optim::{Kind, Method, Role, StateSpec};
use fastoptim::step::{
    self, AllReduce, GroupSegments, Local, Nonfinite, Options, PART, Progress, Regularization,
    Segment, StepContext, StepOutcome,
};

/// The lengths of the parameters of the sharded steps.
const LENGTHS: [usize; 3] = [PART + 40, 40, 3 * PART - 1];

/// The bounds of both processes in each parameter: arrays across both processes, and whole ones.
const ACROSS: [[usize; 3]; 3] = [[0, PART, LENGTHS[0]], [0, 0, 40], [0, 2 * PART, LENGTHS[2]]];
const WHOLE: [[usize; 3]; 3] = [[0, 0, LENGTHS[0]], [0, 40, 40], [0, 0, LENGTHS[2]]];

/// A part of one parameter, with its state and its progress.
struct Parameter<T> {
    index: usize,
    part: Range<usize>,
    shape: Vec<usize>,
    p: Vec<T>,
    state: Vec<Vec<T>>,
    progress: Progress,
}

impl<T: Precision> Parameter<T> {
    fn new(method: &Method, index: usize, part: Range<usize>) -> Self {
        let whole = cases::shape(method, LENGTHS[index]);
        let shape = match part.len() {
            0 => vec![0; whole.len()],
            len if len == LENGTHS[index] => whole,
            len => vec![len],
        };
        let size = |spec: &StateSpec| method.state_shape(spec.name, &shape).iter().product();
        let specs = method.state(shape.len()).iter();
        Self {
            index,
            p: numbers(index, &part, 1),
            state: specs.map(|spec| vec![T::ZERO; size(spec)]).collect(),
            progress: Progress::new(method),
            part,
            shape,
        }
    }
}

/// Returns fixed numbers for one part of a parameter.
fn numbers<T: Precision>(index: usize, part: &Range<usize>, seed: u64) -> Vec<T> {
    let whole = cases::numbers(LENGTHS[index], seed + index as u64);
    let part = whole[part.clone()].iter();
    part.map(|&x| T::from_f64(x)).collect()
}

/// Runs two steps on the parts of the parameters of one process and returns the norms.
fn steps<T: Precision>(
    method: &Method,
    parameters: &mut [Parameter<T>],
    ranks: &dyn AllReduce,
) -> Vec<f64> {
    let options = Options {
        max_norm: Some(0.5),
        nonfinite: Nonfinite::Skip,
        ..Options::DEFAULT
    };
    let mut norms = Vec::new();
    for t in 1..=2 {
        let gradient = |one: &Parameter<T>| numbers(one.index, &one.part, 10 * t);
        let gradients: Vec<Vec<T>> = parameters.iter().map(gradient).collect();
        let mut segments = Vec::new();
        for (one, g) in parameters.iter_mut().zip(&gradients) {
            let context = one.progress.context(t == 1);
            let state = one.state.iter_mut().map(Vec::as_mut_slice);
            let segment = Segment::native(&mut one.p, g, &one.shape, state, context);
            let segment = segment.part_of(one.part.start, LENGTHS[one.index]);
            segments.push(segment.numbered(one.index));
        }
        let group = T::group(method, segments);
        let outcome = step::run(&mut [group], &options, ranks).expect("options are in range");
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
    numbers: [Mutex<Vec<f64>>; 2],
}

struct Rank<'a>(usize, &'a Shared);

impl Rank<'_> {
    fn exchange(&self, own: &[f64]) -> [Vec<f64>; 2] {
        let Self(rank, shared) = self;
        *shared.numbers[*rank].lock().expect("no thread panics") = own.to_vec();
        shared.barrier.wait();
        let of = |rank: usize| {
            shared.numbers[rank]
                .lock()
                .expect("no thread panics")
                .clone()
        };
        let all = [of(0), of(1)];
        shared.barrier.wait();
        all
    }
}

impl AllReduce for Rank<'_> {
    fn sum(&self, own: &mut [f64]) {
        let [a, b] = self.exchange(own);
        assert_eq!(a.len(), b.len());
        for (sum, (a, b)) in own.iter_mut().zip(a.into_iter().zip(b)) {
            assert!(a == 0.0 || b == 0.0, "{a} and {b}");
            *sum = a + b;
        }
    }

    fn max(&self, own: f64) -> f64 {
        let [a, b] = self.exchange(&[own]);
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
        let mut wholes: Vec<_> = (0..3)
            .map(|index| Parameter::<T>::new(&method, index, 0..LENGTHS[index]))
            .collect();
        let norms = steps(&method, &mut wholes, &Local);
        let bounds = if method.works_by_shape() {
            WHOLE
        } else {
            ACROSS
        };
        let shards = on_two_ranks(|rank, ranks| {
            let part = |index: usize| bounds[index][rank]..bounds[index][rank + 1];
            let mut own: Vec<_> = (0..3)
                .map(|index| Parameter::<T>::new(&method, index, part(index)))
                .collect();
            let norms = steps(&method, &mut own, ranks);
            (own, norms)
        });
        for (_, shard) in &shards {
            assert_eq!(*shard, norms, "{method:?}");
        }
        let [first, second] = shards.map(|(parameters, _)| parameters);
        for (whole, parts) in wholes.iter().zip(first.iter().zip(&second)) {
            for part in [parts.0, parts.1] {
                assert_eq!(part.progress, whole.progress, "{method:?}");
            }
            let joined = [&*parts.0.p, &*parts.1.p].concat();
            assert!(joined == whole.p, "{method:?}");
            for (index, state) in whole.state.iter().enumerate() {
                let joined = [&*parts.0.state[index], &*parts.1.state[index]].concat();
                assert!(joined == *state, "{method:?}");
            }
        }
    }
}

#[test]
fn a_sharded_step_equals_the_step_of_one_process() {
    shards_agree::<f32>();
    shards_agree::<f64>();
}

#[test]
#[should_panic(expected = "a part must start at a multiple of")]
fn a_part_that_divides_a_block_is_refused() {
    let (mut p, context) = ([0.0_f32], StepContext::default());
    let segment = Segment::native(&mut p, &[0.0], &[1], [], context);
    let _ = segment.part_of(PART - 1, PART);
}

#[test]
#[should_panic(expected = "a part must be inside its parameter")]
fn a_part_beyond_its_parameter_is_refused() {
    let (mut p, context) = ([0.0_f32], StepContext::default());
    let segment = Segment::native(&mut p, &[0.0], &[1], [], context);
    let _ = segment.part_of(PART, PART);
}

/// Runs one step of gradient descent from 1 on gradients `g` of parameter 7, of parameter 8, which
/// another process has, or on both.
fn descent(
    g: &[f32; 2],
    own: [usize; 2],
    nonfinite: Nonfinite,
    ranks: &dyn AllReduce,
) -> (Result<StepOutcome>, [f32; 2]) {
    let method = Kind::SGD.method(&sgd()).expect("in range");
    let mut p = [1.0; 2];
    let context = Progress::new(&method).context(true);
    let (mut p_rest, mut g_rest) = (&mut p[..], &g[..]);
    let mut segments = Vec::new();
    for (index, shape) in (7..).zip(&own) {
        let (p_head, p_tail) = p_rest.split_at_mut(*shape);
        let (g_head, g_tail) = g_rest.split_at(*shape);
        let shape = std::slice::from_ref(shape);
        let segment = Segment::native(p_head, g_head, shape, [], context);
        segments.push(segment.part_of(0, 2).numbered(index));
        (p_rest, g_rest) = (p_tail, g_tail);
    }
    let group = GroupSegments {
        single: segments,
        ..GroupSegments::new(&method)
    };
    let options = Options {
        nonfinite,
        ..Options::DEFAULT
    };
    (step::run(&mut [group], &options, ranks), p)
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
    let own = [[2, 0], [0, 2]];
    let found =
        on_two_ranks(|rank, ranks| descent(&gradients[rank], own[rank], Nonfinite::Skip, ranks));
    for (outcome, p) in found {
        assert!(!outcome.expect("skipped").applied);
        assert_eq!(p, [1.0; 2]);
    }
    let found =
        on_two_ranks(|rank, ranks| descent(&gradients[rank], own[rank], Nonfinite::Raise, ranks));
    for (outcome, p) in found {
        assert_eq!(outcome.map(|_| ()), Err(Error::NotFinite(Some(8))));
        assert_eq!(p, [1.0; 2]);
    }
    let (outcome, p) = descent(&gradients[1], [2, 0], Nonfinite::Propagate, &Local);
    assert!(outcome.expect("applied").applied);
    assert_eq!(p, [0.5, f32::NEG_INFINITY]);
}

/// One step of gradient descent by 0.5 from 1 on a gradient of 4 in each group, which has a
/// regularization of its own or none: the norm, and the parameters.
fn regularized(own: &[Option<Regularization>], default: Regularization) -> (f64, Vec<f32>) {
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
    let outcome = step::run(&mut groups.collect::<Vec<_>>(), &options, &Local).expect("in range");
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
    let (norm, p) = regularized(&own, Regularization::NONE);
    assert_eq!((norm, p), (20_f64.sqrt(), vec![0.5, 0.5, -0.5, 0.0]));
    let (norm, p) = regularized(&own, ridge);
    assert_eq!((norm, p), (28_f64.sqrt(), vec![0.5, -0.5, -0.5, 0.0]));
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
            let mut groups = [GroupSegments {
                regularization: group,
                ..GroupSegments::new(&method)
            }];
            let options = Options {
                regularization: shrunk,
                ..Options::DEFAULT
            };
            let found = step::run(&mut groups, &options, &Local);
            assert_eq!(found.is_err(), refused, "{kind}");
        }
    }
}

#[test]
fn a_skipped_step_is_not_counted() {
    let method = Kind::SGD.method(&sgd()).expect("in range");
    for (g, steps) in [([1.0, f32::NAN], 0), ([1.0, 2.0], 1)] {
        let (outcome, _) = descent(&g, [2, 0], Nonfinite::Skip, &Local);
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
