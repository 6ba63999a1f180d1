//! The ceiling that steps are held against: the least that can be done with the same memory.

use crate::sweep::elementwise::Elementwise;
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::Rule;
use crate::sweep::segment::{Segment, StepContext};
use crate::sweep::state::StateSpec;
use crate::sweep::task::{self, Work};

/// Adds the gradient to everything.
#[derive(Clone, Copy)]
struct Add;

impl<const S: usize> Rule<f32, S> for Add {
    const STATE: [StateSpec; S] = [StateSpec::other(""); S];

    #[inline(always)]
    fn update(&self, p: f32, g: f32, state: [f32; S]) -> (f32, [f32; S]) {
        (p + g, state.map(|x| x + g))
    }
}

/// Adds `g` to `p` and to every array of `others` in one pass: what an optimizer with as many state
/// arrays reads and writes, with next to no arithmetic.
///
/// # Panics
/// The lengths differ, or there are more than four others.
pub fn stream(p: &mut [f32], g: &[f32], others: Vec<&mut [f32]>) {
    let shape = [p.len()];
    let count = others.len();
    let segment = vec![Segment::native(
        p,
        g,
        &shape,
        others,
        StepContext::default(),
    )];
    let prologue = Prologue::default();
    let work = match count {
        0 => Work::new(Elementwise::<_, _, 0>::new(segment, prologue, |_| Add)),
        1 => Work::new(Elementwise::<_, _, 1>::new(segment, prologue, |_| Add)),
        2 => Work::new(Elementwise::<_, _, 2>::new(segment, prologue, |_| Add)),
        3 => Work::new(Elementwise::<_, _, 3>::new(segment, prologue, |_| Add)),
        _ => Work::new(Elementwise::<_, _, 4>::new(segment, prologue, |_| Add)),
    };
    task::run(vec![work], |sums| sums);
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_is_added_to() {
        for count in 0..=4 {
            let mut arrays = vec![vec![1.0_f32; 1000]; count + 1];
            let (p, others) = arrays.split_first_mut().expect("one at least");
            super::stream(
                p,
                &[2.0; 1000],
                others.iter_mut().map(Vec::as_mut_slice).collect(),
            );
            assert!(arrays.iter().flatten().all(|&x| x == 3.0));
        }
    }
}
