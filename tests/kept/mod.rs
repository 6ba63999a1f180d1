//! Parameters in 16 bits, with moments in 8, and all that may follow a step.

use fastoptim::cells::Cells;
use fastoptim::finish::Finish;
use fastoptim::optim::{Method, Moment, moment};
use fastoptim::prepare::Prepare;
use fastoptim::segment::{Clock, Segment};
use fastoptim::storage::{BLOCK, Half, Noise, Rounding};
use fastoptim::work;

use crate::cases::{numbers, shape};

/// A state array as it is kept.
enum State {
    Single(Vec<f32>),
    Signed(Vec<i8>, Vec<f32>),
    Squares(Vec<u8>, Vec<f32>),
}

impl State {
    fn new(name: &str, len: usize) -> Self {
        let scales = vec![0.0; len.div_ceil(BLOCK)];
        match moment(name) {
            Some(Moment::Signed) => Self::Signed(vec![0; len], scales),
            Some(Moment::Square) => Self::Squares(vec![0; len], scales),
            None => Self::Single(vec![0.0; len]),
        }
    }

    fn cells(&mut self, rounding: Rounding) -> Cells<'_, f32> {
        match self {
            Self::Single(x) => Cells::single(x),
            Self::Signed(q, scales) => Cells::signed(q, scales, rounding),
            Self::Squares(q, scales) => Cells::squares(q, scales, rounding),
        }
    }

    fn bits(&self) -> Vec<u32> {
        let (codes, floats): (Vec<u32>, &[f32]) = match self {
            Self::Single(x) => (Vec::new(), x),
            Self::Signed(q, scales) => (q.iter().map(|&q| q as u32).collect(), scales),
            Self::Squares(q, scales) => (q.iter().map(|&q| u32::from(q)).collect(), scales),
        };
        codes
            .into_iter()
            .chain(floats.iter().map(|x| x.to_bits()))
            .collect()
    }
}

/// The upper halves of fixed numbers: bfloat16.
fn halves(n: usize, seed: u64) -> Vec<u16> {
    let upper = |x: f64| ((x as f32).to_bits() >> 16) as u16;
    numbers(n, seed).into_iter().map(upper).collect()
}

/// All that three steps leave, from gradients that the last of them clears.
pub(crate) fn run(method: &Method, n: usize, prepare: Prepare) -> Vec<u32> {
    let (shape, mut p, mut g) = (shape(method, n), halves(n, 1), Vec::new());
    let (mut average, mut copy) = (vec![0.0_f32; n], vec![0_u16; n]);
    let mut states: Vec<State> = method
        .state(shape.len())
        .iter()
        .map(|name| State::new(name, method.state_shape(name, &shape).iter().product()))
        .collect();
    let initial = method.scalars();
    let mut scalars = std::array::from_fn(|i| initial.get(i).map_or(0.0, |(_, x)| *x));
    for step in 1..=3 {
        g = halves(n, 1 + step);
        let clock = Clock {
            step,
            fresh: step == 1,
            scalars,
        };
        let rounding = |buffer| Rounding::Stochastic(Noise::new(0, 0, buffer, step));
        let state = states.iter_mut().zip(1..);
        let segment = Segment::new(
            Cells::half(Half::Bf16, &mut p, rounding(0)),
            Cells::half(Half::Bf16, &mut g, Rounding::Nearest),
            &shape,
            state.map(|(x, buffer)| x.cells(rounding(buffer))),
            clock,
        );
        let segment = segment.finishing(Finish {
            average: Some((Cells::native(&mut average), 0.1)),
            copy: Some(Cells::half(Half::F16, &mut copy, Rounding::Nearest)),
            iterate: method.averaging().map(|beta| 1.0 - 1.0 / beta),
            clear_gradient: step == 3,
        });
        let found = work::run(vec![method.plan(vec![segment], prepare)]);
        scalars = found[0].unwrap_or_else(|| method.advance(clock));
    }
    assert!(g.iter().all(|&g| g == 0));
    let halves = p.into_iter().chain(copy).map(u32::from);
    let singles = average.into_iter().map(f32::to_bits);
    let states = states.iter().flat_map(State::bits);
    halves.chain(singles).chain(states).collect()
}
