//! Tests of the two-pass driver: the sums that a rule receives, and the arrays that each pass
//! writes.

use crate::exec::pool::with_threads;
use crate::numeric::scale::ScaleFactor;
use crate::sweep::all_reduce::Local;
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::{Term, TwoPassRule};
use crate::sweep::segment::{Segment, StepContext};
use crate::sweep::state::StateSpec;
use crate::sweep::task::{self, Sums, Work};
use crate::sweep::two_pass::TwoPass;

/// A rule that writes its arguments to the parameter and the state.
#[derive(Clone, Copy)]
struct Probe<const FIRST_WRITES: bool, const GLOBAL: bool, const KIND: usize>;

/// The sums of each kind of probe.
const KINDS: [[Term; 2]; 3] = [
    [Term::Value; 2],
    [Term::Square; 2],
    [Term::ParameterSquare, Term::GradientSquare],
];

impl<const FIRST_WRITES: bool, const GLOBAL: bool, const KIND: usize> TwoPassRule<f64, 1>
    for Probe<FIRST_WRITES, GLOBAL, KIND>
{
    const STATE: [StateSpec; 1] = [StateSpec::other("seen")];
    const FIRST_WRITES: bool = FIRST_WRITES;
    const GLOBAL: bool = GLOBAL;
    const SUMS: [Term; 2] = KINDS[KIND];

    fn first(&self, p: f64, g: f64, [seen]: [f64; 1]) -> ([f64; 1], [f64; 2]) {
        ([seen + 1.0], [p, g])
    }

    fn ratio(&self, [p, g]: Sums, n: usize) -> f64 {
        p + 1e3 * g + 1e9 * n as f64
    }

    fn second(&self, ratio: f64, p: f64, g: f64, [seen]: [f64; 1]) -> (f64, [f64; 1]) {
        (ratio + 0.25 * p + 0.125 * g, [10.0 * seen])
    }

    fn scalars(&self, [p, g]: Sums) -> Option<[f64; 3]> {
        Some([p, g, 0.0])
    }
}

/// Less than a block, none, a block, more than a block, and more than one chunk for both passes.
const LENGTHS: [usize; 5] = if cfg!(miri) {
    [5, 0, 256, 259, 600]
} else {
    [5, 0, 1_024, 1_027, 33_000]
};

/// Returns the parameter, the gradient and the state that all elements of an array have.
fn numbers(array: usize) -> [f64; 3] {
    [array as f64 + 1.0, 2.0 - array as f64, 4.0]
}

fn check<const FIRST_WRITES: bool, const GLOBAL: bool, const KIND: usize>() {
    let rule = Probe::<FIRST_WRITES, GLOBAL, KIND>;
    let prologue = Prologue {
        scale: ScaleFactor::quotient(2.0, 1.0),
        ..Prologue::default()
    };
    let full = |(array, &n): (usize, &usize)| numbers(array).map(|x| vec![x; n]);
    let mut arrays: Vec<_> = LENGTHS.iter().enumerate().map(full).collect();
    let segments = arrays.iter_mut().zip(LENGTHS.chunks(1));
    let segments = segments.map(|([p, g, seen], shape)| {
        Segment::native(p, g, shape, [&mut **seen], StepContext::default())
    });
    let segments: Vec<_> = segments.collect();
    let driver = TwoPass::new(&segments, prologue, |_| rule);
    let scalars = task::run(vec![Work::new(driver)], &Local);

    let sums = |array: usize| {
        let [p, g, _] = numbers(array);
        let power = if KIND == 0 { 1 } else { 2 };
        [p, 2.0 * g].map(|x| LENGTHS[array] as f64 * x.powi(power))
    };
    let total = (0..LENGTHS.len())
        .map(sums)
        .fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
    for (array, [p, _, seen]) in arrays.iter().enumerate() {
        let given = if GLOBAL { total } else { sums(array) };
        let [old, g, before] = numbers(array);
        let new = rule.ratio(given, LENGTHS[array]) + 0.25 * old + 0.25 * g;
        assert!(p.iter().all(|&p| p == new), "array {array}: {new}");
        let after = if FIRST_WRITES {
            before + 1.0
        } else {
            10.0 * before
        };
        assert!(seen.iter().all(|&seen| seen == after), "array {array}");
    }
    if GLOBAL {
        assert_eq!(scalars, Some([total[0], total[1], 0.0]));
    }
}

#[test]
fn a_rule_receives_the_sums_of_its_array_or_of_all_arrays() {
    for threads in [1, 3] {
        with_threads(threads, || {
            check::<true, false, 0>();
            check::<false, false, 1>();
            check::<true, true, 1>();
            check::<false, true, 0>();
            check::<false, false, 2>();
            check::<true, true, 2>();
        });
    }
}

#[test]
fn global_sums_include_the_arrays_of_all_work() {
    let rule = Probe::<true, true, 0>;
    let mut arrays: Vec<_> = (0..2)
        .map(|array| numbers(array).map(|x| vec![x; 7]))
        .collect();
    let segments = arrays
        .iter_mut()
        .map(|[p, g, seen]| Segment::native(p, g, &[7], [&mut **seen], StepContext::default()));
    let segments: Vec<_> = segments.collect();
    let works = segments
        .chunks(1)
        .map(|one| Work::new(TwoPass::new(one, Prologue::default(), |_| rule)));
    task::run(works.collect(), &Local);
    let ratio = rule.ratio([7.0 * (1.0 + 2.0), 7.0 * (2.0 + 1.0)], 7);
    assert!(arrays[0][0].iter().all(|&p| p == ratio + 0.25 + 0.25));
    assert!(arrays[1][0].iter().all(|&p| p == ratio + 0.5 + 0.125));
}
