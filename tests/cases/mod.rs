//! Configurations of all optimizers, and arrays to run them on.

use fastoptim::numeric::float::Float;
use fastoptim::optim::hyper::{self, Spec, Value};
use fastoptim::optim::{Kind, Method, StateSpec};
use fastoptim::step::{self, GroupSegments, Local, Options, Progress, Segment};

/// Returns the values of one hyperparameter that select different rules.
fn choices(spec: &Spec) -> Vec<Value> {
    let number = |x: f64| match spec.kind {
        hyper::Kind::Optional(_) => Value::Optional(Some(x)),
        _ => Value::Number(x),
    };
    match (spec.name, spec.kind) {
        (_, hyper::Kind::Flag) => vec![Value::Flag(false), Value::Flag(true)],
        (_, hyper::Kind::Word(words)) => {
            words.iter().map(|w| Value::Word((*w).to_owned())).collect()
        }
        (_, hyper::Kind::OptionalWord(_)) => vec![Value::OptionalWord(None)],
        (_, hyper::Kind::OptionalFirst(_)) => vec![Value::OptionalFirst(None, 1e-3)],
        ("betas", hyper::Kind::Numbers(ranges)) => {
            vec![Value::Numbers([0.9, 0.99, 0.999][..ranges.len()].to_vec())]
        }
        ("etas", _) => vec![Value::Numbers(vec![0.5, 1.2])],
        ("step_sizes", _) => vec![Value::Numbers(vec![1e-6, 50.0])],
        ("ns_coefficients", _) => vec![Value::Numbers(vec![3.4445, -4.775, 2.0315])],
        ("momentum", _) => vec![number(0.0), number(0.9)],
        ("dampening", _) => vec![number(0.0), number(0.1)],
        ("lr" | "trust_coefficient", _) => vec![number(0.1)],
        ("eps", _) => vec![number(1e-8)],
        ("rho" | "alpha", _) => vec![number(0.9)],
        ("t_alpha" | "t_beta3", _) => vec![number(5.0)],
        ("ns_steps", _) => vec![number(if cfg!(miri) { 1.0 } else { 5.0 })],
        ("beta2_decay", _) => vec![number(-0.8)],
        ("d0", _) => vec![number(1e-3)],
        ("d" | "d_coef" | "t0", _) => vec![number(1.0)],
        ("growth_rate", _) => vec![number(f64::INFINITY)],
        (_, hyper::Kind::Optional(_)) => vec![Value::Optional(None)],
        (_, hyper::Kind::Count(_)) => vec![number(2.0)],
        _ => vec![number(0.01)],
    }
}

/// Returns whether `FASTOPTIM_SLOW` is set, which reduces the work of tests. Sanitizers make them
/// many times slower.
pub(crate) fn slow() -> bool {
    std::env::var_os("FASTOPTIM_SLOW").is_some()
}

/// Returns every combination of choices that an optimizer accepts, or only the first and the last
/// of each optimizer if tests are slow.
pub(crate) fn methods() -> Vec<Method> {
    let mut methods = Vec::new();
    for &kind in Kind::ALL {
        let mut combinations = vec![Vec::new()];
        for spec in kind.specs() {
            let longer = |values: Vec<Value>| {
                choices(spec)
                    .into_iter()
                    .map(move |value| [values.clone(), vec![value]].concat())
            };
            combinations = combinations.into_iter().flat_map(longer).collect();
        }
        let before = methods.len();
        methods.extend(
            combinations
                .iter()
                .filter_map(|values| kind.method(values).ok()),
        );
        assert!(methods.len() > before, "{} accepts none", kind.name());
        if (cfg!(miri) || slow()) && methods.len() > before + 2 {
            methods.drain(before + 1..methods.len() - 1);
        }
    }
    methods
}

/// Returns a fixed sequence of pseudorandom numbers around 0.
pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Returns a shape of `n` elements that the method accepts: a matrix with few rows if `n` allows
/// it.
pub(crate) fn shape(method: &Method, n: usize) -> Vec<usize> {
    let rows = (1..=12)
        .rev()
        .find(|rows| n.is_multiple_of(*rows))
        .unwrap_or(1);
    let matrix = vec![rows, n / rows];
    if rows > 1 || method.check_shape(&[n]).is_err() {
        matrix
    } else {
        vec![n]
    }
}

/// A type of computation.
pub(crate) trait Precision: Float {
    /// Creates a group of segments of this type.
    fn group<'a>(method: &'a Method, segments: Vec<Segment<'a, Self>>) -> GroupSegments<'a>;
}

impl Precision for f32 {
    fn group<'a>(method: &'a Method, single: Vec<Segment<'a, Self>>) -> GroupSegments<'a> {
        GroupSegments {
            single,
            ..GroupSegments::new(method)
        }
    }
}

impl Precision for f64 {
    fn group<'a>(method: &'a Method, double: Vec<Segment<'a, Self>>) -> GroupSegments<'a> {
        GroupSegments {
            double,
            ..GroupSegments::new(method)
        }
    }
}

/// Returns the parameters and the state after three steps from fixed numbers, on one array divided
/// into segments of these lengths.
pub(crate) fn run<T: Precision>(
    method: &Method,
    lengths: &[usize],
    options: &Options,
) -> Vec<Vec<T>> {
    let cast = |x: Vec<f64>| x.into_iter().map(T::from_f64).collect::<Vec<T>>();
    let n: usize = lengths.iter().sum();
    let shapes: Vec<_> = lengths.iter().map(|&n| shape(method, n)).collect();
    let mut p = cast(numbers(n, 1));
    let zeros = |shape: &Vec<usize>| -> Vec<Vec<T>> {
        let specs = method.state(shape.len()).iter();
        let size = |spec: &StateSpec| method.state_shape(spec.name, shape).iter().product();
        specs.map(|spec| vec![T::ZERO; size(spec)]).collect()
    };
    let mut states: Vec<_> = shapes.iter().map(zeros).collect();
    let mut progress = Progress::new(method);
    for step in 1..=3 {
        let g = cast(numbers(n, 1 + step));
        let context = progress.context(step == 1);
        let (mut p_rest, mut g_rest) = (p.as_mut_slice(), g.as_slice());
        let mut segments = Vec::new();
        let arrays = lengths.iter().zip(&shapes).zip(&mut states);
        for (index, ((length, shape), state)) in arrays.enumerate() {
            let (p_head, p_tail) = p_rest.split_at_mut(*length);
            let (g_head, g_tail) = g_rest.split_at(*length);
            let state = state.iter_mut().map(Vec::as_mut_slice);
            let segment = Segment::native(p_head, g_head, shape, state, context);
            segments.push(segment.numbered(index));
            (p_rest, g_rest) = (p_tail, g_tail);
        }
        let group = T::group(method, segments);
        let outcome = step::run(&mut [group], options, &Local).expect("options are in range");
        outcome.write_back(method, Some(context), &mut progress);
    }
    [vec![p], states.concat()].concat()
}
