//! Configurations of every optimizer and arrays to run them on.

use fastoptim::float::Float;
use fastoptim::hyper::Value::{Flag, Number, Numbers, Word};
use fastoptim::optim::{Kind, Method};
use fastoptim::prepare::Prepare;
use fastoptim::segment::{Clock, Segment};
use fastoptim::work;

/// Every configuration that selects a rule of its own, with weight decay.
pub(crate) fn methods() -> Vec<Method> {
    let mut methods = Vec::new();
    for &kind in Kind::ALL {
        match kind {
            Kind::SGD => {
                for (momentum, dampening, nesterov, form) in [
                    (0.0, 0.0, false, "outside"),
                    (0.9, 0.1, false, "outside"),
                    (0.9, 0.0, true, "outside"),
                    (0.9, 0.0, false, "inside"),
                    (0.9, 0.0, true, "inside"),
                ] {
                    methods.push(kind.method(&[
                        Number(0.1),
                        Number(momentum),
                        Number(dampening),
                        Number(0.01),
                        Flag(nesterov),
                        Word(form.to_owned()),
                    ]));
                }
            }
            Kind::Adam => {
                for amsgrad in [false, true] {
                    for decoupled in [false, true] {
                        methods.push(kind.method(&[
                            Number(0.1),
                            Numbers(vec![0.9, 0.99]),
                            Number(1e-8),
                            Number(0.01),
                            Flag(amsgrad),
                            Flag(decoupled),
                        ]));
                    }
                }
            }
        }
    }
    methods
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("all are in range")
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

/// The parameters and state after three steps from fixed numbers, over one array or several views
/// of it.
pub(crate) fn run<T: Float>(method: &Method, lengths: &[usize], prepare: Prepare) -> Vec<Vec<T>> {
    let n = lengths.iter().sum();
    let cast = |x: Vec<f64>| x.into_iter().map(T::from_f64).collect::<Vec<T>>();
    let mut p = cast(numbers(n, 1));
    let mut state = vec![vec![T::ZERO; n]; method.state(1).len()];
    let initial = method.scalars();
    let mut scalars = std::array::from_fn(|i| initial.get(i).map_or(0.0, |(_, x)| *x));
    for step in 1..=3 {
        let g = cast(numbers(n, 1 + step));
        let clock = Clock {
            step,
            fresh: step == 1,
            scalars,
        };
        let mut p_rest = p.as_mut_slice();
        let mut g_rest = g.as_slice();
        let mut state_rest: Vec<&mut [T]> = state.iter_mut().map(Vec::as_mut_slice).collect();
        let mut segments = Vec::new();
        for length in lengths {
            let (p_head, p_tail) = p_rest.split_at_mut(*length);
            let (g_head, g_tail) = g_rest.split_at(*length);
            let (heads, tails): (Vec<_>, Vec<_>) = state_rest
                .into_iter()
                .map(|array| array.split_at_mut(*length))
                .unzip();
            segments.push(Segment::new(
                p_head,
                g_head,
                std::slice::from_ref(length),
                heads,
                clock,
            ));
            (p_rest, g_rest, state_rest) = (p_tail, g_tail, tails);
        }
        let works = work::run(vec![method.plan(segments, prepare)]);
        scalars = works[0].scalars().unwrap_or_else(|| method.advance(clock));
    }
    state.insert(0, p);
    state
}
