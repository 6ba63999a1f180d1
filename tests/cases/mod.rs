//! Configurations of every optimizer and arrays to run them on.

use fastoptim::float::Float;
use fastoptim::hyper::{self, Spec, Value};
use fastoptim::optim::{Kind, Method};
use fastoptim::prepare::Prepare;
use fastoptim::segment::{Clock, Segment};
use fastoptim::work;

/// The values of one hyperparameter that select rules of their own.
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

/// Every combination of choices that an optimizer takes.
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
        assert!(methods.len() > before, "{} takes none", kind.name());
        // Miri is slow: two of each, which have no choice in common.
        if cfg!(miri) && methods.len() > before + 2 {
            methods.drain(before + 1..methods.len() - 1);
        }
    }
    methods
}

/// A fixed sequence of numbers around 0 without pattern.
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

/// A shape of `n` elements that the method takes: a matrix of few rows where it can be one.
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

/// The parameters and state after three steps from fixed numbers, over one array or several views
/// of it.
pub(crate) fn run<T: Float>(method: &Method, lengths: &[usize], prepare: Prepare) -> Vec<Vec<T>> {
    let cast = |x: Vec<f64>| x.into_iter().map(T::from_f64).collect::<Vec<T>>();
    let n: usize = lengths.iter().sum();
    let shapes: Vec<_> = lengths.iter().map(|&n| shape(method, n)).collect();
    let mut p = cast(numbers(n, 1));
    let zeros = |shape: &Vec<usize>| -> Vec<Vec<T>> {
        let names = method.state(shape.len()).iter();
        let size = |name: &&str| method.state_shape(name, shape).iter().product();
        names.map(|name| vec![T::ZERO; size(name)]).collect()
    };
    let mut states: Vec<_> = shapes.iter().map(zeros).collect();
    let initial = method.scalars();
    let mut scalars = std::array::from_fn(|i| initial.get(i).map_or(0.0, |(_, x)| *x));
    for step in 1..=3 {
        let g = cast(numbers(n, 1 + step));
        let clock = Clock {
            step,
            fresh: step == 1,
            scalars,
        };
        let (mut p_rest, mut g_rest) = (p.as_mut_slice(), g.as_slice());
        let mut segments = Vec::new();
        for ((length, shape), state) in lengths.iter().zip(&shapes).zip(&mut states) {
            let (p_head, p_tail) = p_rest.split_at_mut(*length);
            let (g_head, g_tail) = g_rest.split_at(*length);
            let state = state.iter_mut().map(Vec::as_mut_slice);
            segments.push(Segment::native(p_head, g_head, shape, state, clock));
            (p_rest, g_rest) = (p_tail, g_tail);
        }
        let found = work::run(vec![method.plan(segments, prepare)]);
        scalars = found[0].unwrap_or_else(|| method.advance(clock));
    }
    [vec![p], states.concat()].concat()
}
