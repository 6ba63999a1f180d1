//! Loops in registers against tiles.

use crate::optim::adam::Adam;
use crate::optim::hyper::Value::{Flag, Number, Numbers};
use crate::optim::lion::Lion;
use crate::optim::sgd::Sgd;
use crate::optim::{Kind, Method};
use crate::step::{self, GroupSegments, Local, Options, Segment, StepContext};
use crate::storage::column::PER_RUN;
use crate::storage::view::StorageView;
use crate::storage::{BLOCK, GROUP, Half, Noise, Rounding};
use crate::sweep::epilogue::Epilogue;

/// Runs of random numbers, whole groups, and a rest.
const N: usize = (3 * PER_RUN + 3) * GROUP + 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    F32,
    Bf16,
    Int8,
}

/// One array in each encoding, of which a step uses one.
struct Array {
    singles: Vec<f32>,
    halves: Vec<u16>,
    codes: (Vec<i8>, Vec<f32>),
    squares: (Vec<u8>, Vec<f32>),
}

impl Array {
    /// Creates numbers of this size. Infinities and NaN are in every group, but in one block
    /// only if blocks have scales.
    fn new(scale: f32, stored: Stored) -> Self {
        let special = [f32::NAN, f32::INFINITY, 3.4e38, 0.0, -0.0];
        let has_special = |i: usize| stored != Stored::Int8 || i / BLOCK == 1;
        let at = |i: usize| match i % 97 {
            n if n < special.len() && has_special(i) => special[n],
            n => scale * (1.0 + n as f32 / 7.0),
        };
        let singles: Vec<f32> = (0..N).map(at).collect();
        let scales = vec![scale; N.div_ceil(BLOCK)];
        Self {
            halves: singles.iter().map(|&x| (bits(x) >> 16) as u16).collect(),
            codes: ((0..N).map(|i| (i * 7) as i8).collect(), scales.clone()),
            squares: ((0..N).map(|i| (i * 5) as u8).collect(), scales),
            singles,
        }
    }

    fn view(&mut self, stored: Stored, buffer: u64, nearest: bool) -> StorageView<'_, f32> {
        let rounding = if nearest {
            Rounding::Nearest
        } else {
            Rounding::Stochastic(Noise::new(1, 2, buffer, 3))
        };
        let (codes, squares) = (&mut self.codes, &mut self.squares);
        match stored {
            Stored::F32 => StorageView::native(&mut self.singles),
            Stored::Bf16 => StorageView::half(Half::Bf16, &mut self.halves, rounding),
            Stored::Int8 if buffer == 2 => {
                StorageView::squares(&mut squares.0, &mut squares.1, rounding)
            }
            Stored::Int8 => StorageView::signed(&mut codes.0, &mut codes.1, rounding),
        }
    }

    fn bits(self) -> impl PartialEq {
        let all = |x: Vec<f32>| x.into_iter().map(bits).collect::<Vec<_>>();
        let codes = (self.codes.0, all(self.codes.1));
        let squares = (self.squares.0, all(self.squares.1));
        (all(self.singles), self.halves, codes, squares)
    }
}

fn bits(x: f32) -> u32 {
    x.to_bits()
}

/// Returns the parameter and the state after a step of AdamW. A float16 copy of the parameter
/// requires tiles.
fn stepped(stored: [Stored; 3], nearest: bool, with_copy: bool) -> impl PartialEq {
    let [mut p, mut g, mut m, mut v] = [-1.0, 1e-2, 1e-2, 1e-4].map(|s| Array::new(s, stored[2]));
    let numbers = [
        Number(1e-3),
        Numbers(vec![0.9, 0.999]),
        Number(1e-8),
        Number(0.01),
    ];
    let flags = [Flag(false), Flag(true), Flag(false)];
    let values = numbers.into_iter().chain(flags).collect::<Vec<_>>();
    let method = Kind::Adam.method(&values).expect("in range");
    let context = StepContext {
        step: 3,
        ..StepContext::default()
    };
    let mut copy = vec![0; N];
    let shape = [N];
    let state = [(&mut m, 1), (&mut v, 2)];
    let state = state.map(|(array, buffer)| array.view(stored[2], buffer, nearest));
    let (parameter, gradient) = (p.view(stored[0], 0, nearest), g.view(stored[1], 4, nearest));
    let mut segment = Segment::new(parameter, gradient, &shape, state, context);
    if with_copy {
        segment = segment.with_epilogue(Epilogue {
            copy: Some(StorageView::half(Half::F16, &mut copy, Rounding::Nearest)),
            ..Epilogue::default()
        });
    }
    let group = GroupSegments {
        single: vec![segment],
        ..GroupSegments::new(&method)
    };
    let outcome = step::run(&mut [group], &Options::default(), &Local).expect("in range");
    assert!(outcome.applied);
    assert!(m.codes.1.iter().any(|x| !x.is_nan()));
    [p, m, v].map(Array::bits)
}

#[test]
fn conversions_in_registers_give_the_bits_of_tiles() {
    use Stored::{Bf16, F32, Int8};
    for stored in [
        [F32, F32, Bf16],
        [F32, Bf16, F32],
        [Bf16, Bf16, F32],
        [Bf16, Bf16, Bf16],
        [F32, F32, Int8],
        [Bf16, Bf16, Int8],
    ] {
        for nearest in [false, true] {
            let in_registers = stepped(stored, nearest, false);
            let in_tiles = stepped(stored, nearest, true);
            assert!(in_registers == in_tiles, "{stored:?} {nearest}");
        }
    }
}

/// The epilogue of a step: the weight of an average, a copy, zeroing.
#[derive(Clone, Copy, Debug)]
struct After {
    average: Option<f64>,
    copy: Option<Half>,
    clear: bool,
}

/// Returns the bits of all arrays after a step: the parameter, the gradient, two states, the
/// average and the copy. Clipping by value requires tiles, and changes no finite gradient.
fn followed(method: &Method, after: After, clip_value: Option<f64>) -> Vec<Vec<u32>> {
    let special = [f32::NAN, f32::INFINITY, 3.4e38, 0.0, -0.0];
    let values = |scale: f32| -> Vec<f32> {
        let at = |i: usize| scale * (1.0 + (i % 97) as f32 / 7.0);
        (0..N).map(at).collect()
    };
    let (mut p, mut g, mut average) = (values(-1.0), values(1e-2), values(0.5));
    p[3..3 + special.len()].copy_from_slice(&special);
    average[5..5 + special.len()].copy_from_slice(&special);
    let mut state = [values(1e-2), values(1e-4)];
    let mut copy = vec![7; N];
    let context = StepContext {
        step: 3,
        ..StepContext::default()
    };
    let slots = method.state(1).len();
    let arrays = state.iter_mut().take(slots);
    let epilogue = Epilogue {
        average: after
            .average
            .map(|weight| (StorageView::native(&mut average), weight)),
        copy: after
            .copy
            .map(|half| StorageView::half(half, &mut copy, Rounding::Nearest)),
        iterate: None,
        clear_gradient: after.clear,
    };
    let (parameter, gradient) = (StorageView::native(&mut p), StorageView::native(&mut g));
    let arrays = arrays.map(|array| StorageView::native(array));
    let mut segment = Segment::new(parameter, gradient, &[N], arrays, context);
    if epilogue.average.is_some() || epilogue.copy.is_some() || epilogue.clear_gradient {
        segment = segment.with_epilogue(epilogue);
    }
    let group = GroupSegments {
        single: vec![segment],
        ..GroupSegments::new(method)
    };
    let options = Options {
        clip_value,
        loss_scale: 3.0,
        ..Options::default()
    };
    assert!(
        step::run(&mut [group], &options, &Local)
            .expect("in range")
            .applied
    );
    let [m, v] = state;
    let singles = [p, g, m, v, average];
    let mut all: Vec<Vec<u32>> = singles
        .map(|array| array.into_iter().map(bits).collect())
        .into();
    all.push(copy.into_iter().map(u32::from).collect());
    all
}

#[test]
fn epilogues_and_weight_decay_in_registers_give_the_bits_of_tiles() {
    let [adam, adamw] = [false, true].map(|decoupled_weight_decay| {
        Method::Adam(Adam {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            amsgrad: false,
            decoupled_weight_decay,
            cautious: false,
        })
    });
    let lion = Method::Lion(Lion {
        lr: 1e-3,
        betas: [0.9, 0.99],
        weight_decay: 0.01,
        cautious: false,
    });
    let sgd = |momentum, weight_decay, nesterov| {
        Method::SGD(Sgd {
            lr: 1e-3,
            momentum,
            dampening: 0.0,
            weight_decay,
            nesterov,
            momentum_form: "outside".to_owned(),
        })
    };
    let plain = sgd(0.0, 0.01, false);
    let [momentum, nesterov] = [sgd(0.9, 0.01, false), sgd(0.9, 0.0, true)];
    for method in [adam, adamw, lion, plain, momentum, nesterov] {
        for average in [None, Some(0.25), Some(1.0)] {
            for copy in [None, Some(Half::Bf16), Some(Half::F16)] {
                for clear in [false, true] {
                    let after = After {
                        average,
                        copy,
                        clear,
                    };
                    let fused = followed(&method, after, None);
                    let tiled = followed(&method, after, Some(f64::from(f32::MAX)));
                    assert!(fused == tiled, "{method:?} {after:?}");
                    assert_eq!(fused[1].iter().all(|&x| x == 0), clear);
                }
            }
        }
    }
}
