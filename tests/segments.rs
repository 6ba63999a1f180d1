//! Segments of one allocation: one loop runs over adjacent segments, and only over those.

#[expect(dead_code, reason = "used by other tests")]
mod cases;

use cases::Precision;
use fastoptim::optim::{Method, StateSpec};
use fastoptim::step::{self, Local, Options, Progress, Segment, StepContext};
use fastoptim::storage::view::{Raw, StorageView};
use fastoptim::storage::{Encoding, Rounding};

/// The number of elements of a segment and of a gap.
const N: usize = 40;
const GAP: usize = 5;

/// An allocation with two segments of `N` elements each, which may have a gap in between.
struct Array {
    numbers: Vec<f32>,
    gap: usize,
}

impl Array {
    fn new(seed: u64, gap: bool) -> Self {
        // A loop that wrongly ran over a gap would remain inside the allocation.
        let numbers = cases::numbers(3 * N, seed);
        Self {
            numbers: numbers.into_iter().map(|x| x.abs() as f32).collect(),
            gap: if gap { GAP } else { 0 },
        }
    }

    fn parts(&mut self) -> [StorageView<'_, f32>; 2] {
        let start = self.numbers.as_mut_ptr();
        // SAFETY: both parts are inside `numbers`, which is borrowed exclusively, and do not
        // overlap. The pointers are valid for the whole allocation, as `Segment::follows` requires.
        [0, N + self.gap].map(|from| unsafe {
            let part = Raw::new(Encoding::F32, start.add(from).cast(), N);
            StorageView::from_raw(part, Rounding::Nearest)
        })
    }
}

/// Returns the parameters, the gradients and the states after a step. `gaps` says for each of these
/// arrays whether it has a gap between the segments.
fn step(
    method: &Method,
    gaps: &[bool],
    contexts: [StepContext; 2],
    follows: bool,
) -> Vec<Vec<f32>> {
    let mut arrays: Vec<_> = (1..)
        .zip(gaps)
        .map(|(seed, &gap)| Array::new(seed, gap))
        .collect();
    let halves = arrays.iter_mut().map(|array| array.parts().into());
    let (first, second): (Vec<_>, Vec<_>) = halves.unzip();
    let mut segments = Vec::new();
    for (arrays, context) in [(first, contexts[0]), (second, contexts[1])] {
        let mut arrays = arrays.into_iter();
        let (p, g) = (arrays.next().expect("p"), arrays.next().expect("g"));
        segments.push(Segment::new(p, g, &[N], arrays, context));
    }
    if follows {
        let last = segments.pop().expect("there are two segments");
        // SAFETY: `Array::parts` creates the views of both segments from one pointer to the whole
        // allocation.
        segments.push(unsafe { last.follows() });
    }
    let group = f32::group(method, segments);
    let outcome = step::run(&mut [group], &Options::DEFAULT, &Local).expect("options are in range");
    assert!(outcome.applied);
    arrays.into_iter().map(|array| array.numbers).collect()
}

fn context(method: &Method, step: u64, fresh: bool) -> StepContext {
    StepContext {
        step,
        ..Progress::new(method).context(fresh)
    }
}

#[test]
fn a_loop_runs_over_two_segments_only_if_all_arrays_are_adjacent() {
    for method in cases::methods() {
        let states = method.state(1);
        let flat = |spec: &StateSpec| method.state_shape(spec.name, &[N]) == [N];
        if method.check_shape(&[N]).is_err() || !states.iter().all(flat) {
            continue;
        }
        let arrays = 2 + states.len();
        let mut layouts = vec![vec![false; arrays]];
        for gap in 0..arrays {
            layouts.push((0..arrays).map(|array| array == gap).collect());
        }
        for gaps in layouts {
            let first = context(&method, 3, false);
            for (t, fresh) in [(3, false), (9, false), (3, true)] {
                let contexts = [first, context(&method, t, fresh)];
                assert!(
                    step(&method, &gaps, contexts, true) == step(&method, &gaps, contexts, false),
                    "{method:?} with gaps {gaps:?} at {contexts:?}"
                );
            }
        }
    }
}
