//! Steps with parameters in 16 bits, moments in 8 bits, and an epilogue.

use fastoptim::optim::schedule_free::average_weight;
use fastoptim::optim::{Method, Role, StateSpec};
use fastoptim::step::{self, Epilogue, GroupSegments, Local, Options, Progress, Segment};
use fastoptim::storage::view::StorageView;
use fastoptim::storage::{BLOCK, Half, Noise, Rounding};

use crate::cases::{numbers, shape};

/// A state array in its storage.
enum State {
    Single(Vec<f32>),
    Signed(Vec<i8>, Vec<f32>),
    Squares(Vec<u8>, Vec<f32>),
}

impl State {
    fn new(spec: &StateSpec, len: usize) -> Self {
        let scales = vec![0.0; len.div_ceil(BLOCK)];
        match spec.role {
            Role::FirstMoment => Self::Signed(vec![0; len], scales),
            Role::SecondMoment => Self::Squares(vec![0; len], scales),
            Role::Iterate | Role::Other => Self::Single(vec![0.0; len]),
        }
    }

    fn view(&mut self, rounding: Rounding) -> StorageView<'_, f32> {
        match self {
            Self::Single(x) => StorageView::single(x),
            Self::Signed(q, scales) => StorageView::signed(q, scales, rounding),
            Self::Squares(q, scales) => StorageView::squares(q, scales, rounding),
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

/// Returns fixed numbers in bfloat16, the upper half of float32.
fn halves(n: usize, seed: u64) -> Vec<u16> {
    let upper = |x: f64| ((x as f32).to_bits() >> 16) as u16;
    numbers(n, seed).into_iter().map(upper).collect()
}

/// One parameter with its gradient, state, average and copy.
struct Parameter {
    index: usize,
    shape: Vec<usize>,
    p: Vec<u16>,
    g: Vec<u16>,
    average: Vec<f32>,
    copy: Vec<u16>,
    states: Vec<State>,
    progress: Progress,
}

impl Parameter {
    fn new(method: &Method, index: usize, n: usize) -> Self {
        let shape = shape(method, n);
        let specs = method.state(shape.len()).iter();
        let size = |spec: &StateSpec| method.state_shape(spec.name, &shape).iter().product();
        Self {
            index,
            p: halves(n, 1),
            g: Vec::new(),
            average: vec![0.0; n],
            copy: vec![0; n],
            states: specs.map(|spec| State::new(spec, size(spec))).collect(),
            progress: Progress::new(method),
            shape,
        }
    }

    fn segment(&mut self, method: &Method, step: u64) -> Segment<'_, f32> {
        self.g = halves(self.p.len(), 1 + step);
        let (index, context) = (self.index as u64, self.progress.context(step == 1));
        let rounding = |buffer| Rounding::Stochastic(Noise::new(0, index, buffer, step));
        let states = self.states.iter_mut().zip(1..);
        let segment = Segment::new(
            StorageView::half(Half::Bf16, &mut self.p, rounding(0)),
            StorageView::half(Half::Bf16, &mut self.g, Rounding::Nearest),
            &self.shape,
            states.map(|(x, buffer)| x.view(rounding(buffer))),
            context,
        )
        .numbered(self.index);
        segment.with_epilogue(Epilogue {
            average: Some((StorageView::native(&mut self.average), 0.1)),
            copy: Some(StorageView::half(
                Half::F16,
                &mut self.copy,
                Rounding::Nearest,
            )),
            iterate: method.averaging().map(average_weight),
            clear_gradient: step == 3,
        })
    }

    fn bits(&self) -> Vec<u32> {
        assert!(self.g.iter().all(|&g| g == 0));
        let halves = self.p.iter().chain(&self.copy).map(|&x| u32::from(x));
        let singles = self.average.iter().map(|x| x.to_bits());
        let states = self.states.iter().flat_map(State::bits);
        halves.chain(singles).chain(states).collect()
    }
}

/// Returns the bits of each parameter after three steps, the last of which clears the gradients. A
/// parameter is given by its index, on which its random bits depend, and its length.
pub(crate) fn run(
    method: &Method,
    parameters: &[(usize, usize)],
    options: &Options,
) -> Vec<Vec<u32>> {
    let mut parameters: Vec<_> = parameters
        .iter()
        .map(|&(index, n)| Parameter::new(method, index, n))
        .collect();
    for step in 1..=3 {
        let segments = parameters.iter_mut().map(|one| one.segment(method, step));
        let group = GroupSegments {
            single: segments.collect(),
            ..GroupSegments::new(method)
        };
        let outcome = step::run(&mut [group], options, &Local).expect("options are in range");
        for one in &mut parameters {
            let context = one.progress.context(step == 1);
            outcome.write_back(method, Some(context), &mut one.progress);
        }
    }
    parameters.iter().map(Parameter::bits).collect()
}
