//! The upper bound on the speed of steps in benchmarks: the same memory traffic with almost no
//! arithmetic.

use crate::sweep::elementwise::Elementwise;
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::Rule;
use crate::sweep::segment::{Segment, StepContext};
use crate::sweep::state::StateSpec;
use crate::sweep::task::{self, Work};

/// Adds the gradient to the parameter and to every state array.
#[derive(Clone, Copy)]
struct Add;

impl<const S: usize> Rule<f32, S> for Add {
    const STATE: [StateSpec; S] = [StateSpec::other(""); S];

    #[inline(always)]
    fn update(&self, p: f32, g: f32, state: [f32; S]) -> (f32, [f32; S]) {
        (p + g, state.map(|x| x + g))
    }
}

/// Adds `g` to `p` and to every array of `others` in one pass. It reads and writes the same memory
/// as an optimizer with as many state arrays, with almost no arithmetic.
///
/// # Panics
/// The lengths differ, or `others` has more than four arrays.
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
    fn the_gradient_is_added_to_every_array() {
        for count in 0..=4 {
            let mut arrays = vec![vec![1.0_f32; 1000]; count + 1];
            let (p, others) = arrays.split_first_mut().expect("at least one array");
            super::stream(
                p,
                &[2.0; 1000],
                others.iter_mut().map(Vec::as_mut_slice).collect(),
            );
            assert!(arrays.iter().flatten().all(|&x| x == 3.0));
        }
    }
}
