//! The loop of an elementwise rule over bfloat16 arrays, with the conversions in registers.

use crate::exec::isa::{Kernel, Tier};
use crate::numeric::float::Float;
use crate::storage::GROUP;
use crate::storage::column::{Column, ColumnMut, RUN};
use crate::sweep::rule::Rule;
use crate::sweep::segment::Segment;

/// Updates the elements `from..to` of a segment, or as many of them as are whole groups, and returns
/// their number. Returns 0 if the arrays have encodings that are updated in tiles, or an epilogue.
///
/// # Safety
/// As for [`Segment::slices`], of a segment in any encoding.
pub(crate) unsafe fn update<T: Float, const S: usize, R: Rule<T, S>>(
    segment: &Segment<'_, T>,
    (from, to): (usize, usize),
    rule: R,
    scale: T,
    tier: Tier,
) -> usize {
    // Arrays in low precision beside f64 are too rare for loops of their own.
    if size_of::<T>() > 4 || S == 0 || segment.has_epilogue() {
        return 0;
    }
    let to = to - (to - from) % GROUP;
    // SAFETY: by this function's contract the range is inside all arrays, of which `Segment::new`
    // checked those that are written, and no other code accesses these elements.
    unsafe {
        let (p, g) = (segment.p.slice_mut(from, to), segment.g.slice(from, to));
        let halves = || (segment.p.halves_mut(from, to), segment.g.halves(from, to));
        let native = || each(|j| segment.state()[j].slice_mut(from, to));
        let low = || each(|j| segment.state()[j].halves_mut(from, to));
        match (p, g) {
            (Some(p), Some(g)) => {
                let Some(state) = low() else { return 0 };
                tier.run(InRegisters {
                    rule,
                    scale,
                    p,
                    g,
                    state,
                });
            }
            (Some(p), None) => {
                let (Some(g), Some(state)) = (segment.g.halves(from, to), native()) else {
                    return 0;
                };
                tier.run(InRegisters {
                    rule,
                    scale,
                    p,
                    g,
                    state,
                });
            }
            (None, None) => {
                let (Some(p), Some(g)) = halves() else {
                    return 0;
                };
                if let Some(state) = native() {
                    tier.run(InRegisters {
                        rule,
                        scale,
                        p,
                        g,
                        state,
                    });
                } else if let Some(state) = low() {
                    tier.run(InRegisters {
                        rule,
                        scale,
                        p,
                        g,
                        state,
                    });
                } else {
                    return 0;
                }
            }
            (None, Some(_)) => return 0,
        }
    }
    to - from
}

/// Returns `f` of every index, unless it returns `None` for one.
fn each<U, const S: usize>(f: impl Fn(usize) -> Option<U>) -> Option<[U; S]> {
    let found: [Option<U>; S] = std::array::from_fn(f);
    let all = found.iter().all(Option::is_some);
    all.then(|| found.map(|value| value.expect("all are some")))
}

/// The loop. All columns have the same length, a multiple of [`GROUP`].
struct InRegisters<T, R, P, G, M, const S: usize> {
    rule: R,
    scale: T,
    p: P,
    g: G,
    state: [M; S],
}

/// Runs a block for every state array. LLVM does not unroll a loop with such long iterations, and
/// arrays with an index that is not constant stay in memory.
macro_rules! for_each_state {
    ($j:ident in 0..$count:ident $body:block) => {
        const { assert!($count <= 4) };
        if $count > 0 {
            let $j = 0;
            $body
        }
        if $count > 1 {
            let $j = 1;
            $body
        }
        if $count > 2 {
            let $j = 2;
            $body
        }
        if $count > 3 {
            let $j = 3;
            $body
        }
    };
}

impl<T, R, P, G, M, const S: usize> Kernel for InRegisters<T, R, P, G, M, S>
where
    T: Float,
    R: Rule<T, S>,
    P: ColumnMut<T>,
    G: Column<T>,
    M: ColumnMut<T>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            rule,
            scale,
            mut p,
            g,
            mut state,
        } = self;
        let n = p.len();
        assert!(g.len() == n && n.is_multiple_of(GROUP));
        for_each_state!(j in 0..S {
            assert!(state[j].len() == n);
        });
        let mut at = 0;
        while at < n {
            p.enter(at);
            for_each_state!(j in 0..S {
                state[j].enter(at);
            });
            let end = n.min(at + RUN);
            while at < end {
                let (mut new_p, gradient) = (p.read(at), g.read(at));
                let mut new = [[T::ZERO; GROUP]; S];
                for_each_state!(j in 0..S {
                    new[j] = state[j].read(at);
                });
                for i in 0..GROUP {
                    let mut old = [T::ZERO; S];
                    for j in 0..S {
                        old[j] = new[j][i];
                    }
                    let (updated, moved) = rule.update(new_p[i], gradient[i] * scale, old);
                    new_p[i] = updated;
                    for j in 0..S {
                        new[j][i] = moved[j];
                    }
                }
                p.write(at, new_p);
                for_each_state!(j in 0..S {
                    state[j].write(at, new[j]);
                });
                at += GROUP;
            }
        }
    }
}
