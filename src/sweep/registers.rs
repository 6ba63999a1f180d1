//! The loop of an elementwise rule with more in registers: conversions of arrays in 16 or 8 bits,
//! coupled weight decay, or the epilogue.
//!
//! The integer arithmetic of conversions runs beside the square root and the division of the rule.
//! Through tiles, AdamW takes 1.7 times as long with bfloat16 moments on AVX2 and 1.2 times on
//! AVX-512 (16 Ki elements in cache, one thread of Sapphire Rapids: 2.70 and 1.62 ns per element
//! against 1.59 and 1.38), and 1.8 and 1.6 times with two threads on 4 Mi elements. With moments in
//! 8 bits it takes 1.1 and 1.5 times as long (one thread of Ice Lake: 1.44 and 1.36 ns against 1.32
//! and 0.89; with float32 moments 0.48 on both), and with bfloat16 parameters and gradients beside
//! these 1.6 and 1.3 times (16 Mi elements, two threads of Sapphire Rapids: 1.84 and 1.14 ns
//! against 1.16 and 0.86).
//!
//! Stages over tiles leave the memory idle in turn. Through tiles, AdamW takes 1.17 times as long
//! with an average, 1.22 with a copy, 1.3 with both and 1.1 with zeroing, and momentum with weight
//! decay 1.3 times (16 Mi elements, two threads of Ice Lake; nearly the same on AVX2 and AVX-512).
//! In cache, AVX2 gains up to 1.3 and AVX-512 up to 1.4. The loops with epilogues take 30 KiB per
//! rule, so only rules with [`Rule::EPILOGUES`] have them.

use std::marker::PhantomData;

use crate::exec::isa::{self, Kernel, Tier};
use crate::numeric::float::Float;
use crate::storage::column::{Average, Cleared, Column, ColumnMut, Followed, PER_RUN};
use crate::storage::{BLOCK, Encoding, GROUP};
use crate::sweep::epilogue::Epilogue;
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::Rule;
use crate::sweep::segment::Segment;
use crate::sweep::state::{Role, StateSpec};

/// Updates the elements `from..to` of a segment, or as many of them as are whole groups, or whole
/// blocks of 8-bit numbers, and returns their number. Returns 0 if the arrays have encodings, or
/// the prologue or the epilogue have operations, that require tiles.
///
/// # Safety
/// As for [`Segment::slices`], of a segment in any encoding, and no other code accesses these
/// elements of the targets of its epilogue during the call.
pub(crate) unsafe fn update<T: Float, const S: usize, R: Rule<T, S>>(
    segment: &Segment<'_, T>,
    (from, to): (usize, usize),
    rule: R,
    prologue: &Prologue,
    tier: Tier,
) -> usize {
    // f64 other than in the loop of the rule alone is too rare for loops of its own.
    if size_of::<T>() > 4 || segment.threshold > T::ZERO {
        return 0;
    }
    let unit = if segment.has_scales() { BLOCK } else { GROUP };
    let to = to - (to - from) % unit;
    let part = Part {
        segment,
        range: (from, to),
        rule,
        prologue,
        tier,
    };
    // SAFETY: all have the contract of this function.
    let updated = unsafe {
        match (prologue.plain(), segment.epilogue()) {
            (Some(scale), None) if S > 0 => part.convert(scale),
            (None, None) => part.prepare(),
            (_, Some(epilogue)) if R::EPILOGUES => part.follow(epilogue),
            _ => None,
        }
    };
    updated.map_or(0, |()| to - from)
}

/// Whole groups of a segment, and what is done with them.
struct Part<'s, 'a, T, R> {
    segment: &'s Segment<'a, T>,
    range: (usize, usize),
    rule: R,
    prologue: &'s Prologue,
    tier: Tier,
}

impl<T: Float, R> Part<'_, '_, T, R> {
    /// Updates arrays of which some are in bfloat16, or moments in 8 bits. Returns `None`, having
    /// changed nothing, for other arrays.
    ///
    /// # Safety
    /// As for [`update`].
    unsafe fn convert<const S: usize>(self, scale: T) -> Option<()>
    where
        R: Rule<T, S>,
    {
        let (segment, (from, to)) = (self.segment, self.range);
        // SAFETY: by this function's contract the range is inside all arrays, of which
        // `Segment::new` checked those that are written, and no other code accesses these elements.
        unsafe {
            let p = segment.p.slice_mut(from, to).map(groups_mut);
            let g = segment.g.slice(from, to).map(groups);
            let native = || each(|j| segment.state()[j].slice_mut(from, to).map(groups_mut));
            let low = || each(|j| segment.state()[j].halves_mut(from, to));
            let nearest = || each(|j| segment.state()[j].nearest_mut(from, to));
            let codes = || each(|j| segment.state()[j].codes_mut(from, to, codes_of(R::STATE[j])));
            match (p, g) {
                (Some(p), Some(g)) => {
                    let g = Scaled(g, scale);
                    match (low(), nearest()) {
                        (Some(state), _) => self.run(p, g, state),
                        (None, Some(state)) => self.run(p, g, state),
                        (None, None) => self.run(p, g, codes()?),
                    }
                }
                (Some(p), None) => {
                    let g = Scaled(segment.g.halves(from, to)?, scale);
                    self.run(p, g, native()?);
                }
                (None, None) => {
                    let g = Scaled(segment.g.halves(from, to)?, scale);
                    if let Some(p) = segment.p.nearest_mut(from, to) {
                        match (native(), nearest()) {
                            (Some(state), _) => self.run(p, g, state),
                            (None, Some(state)) => self.run(p, g, state),
                            (None, None) => self.run(p, g, codes()?),
                        }
                        return Some(());
                    }
                    let p = segment.p.halves_mut(from, to)?;
                    match (native(), low()) {
                        (Some(state), _) => self.run(p, g, state),
                        (None, Some(state)) => self.run(p, g, state),
                        (None, None) => self.run(p, g, codes()?),
                    }
                }
                (None, Some(_)) => return None,
            }
        }
        Some(())
    }

    /// Updates native arrays after a prologue that adds weight decay. Returns `None`, having
    /// changed nothing, for other arrays and prologues.
    ///
    /// # Safety
    /// As for [`update`].
    unsafe fn prepare<const S: usize>(self) -> Option<()>
    where
        R: Rule<T, S>,
    {
        let (segment, (from, to)) = (self.segment, self.range);
        // SAFETY: as for `convert`.
        unsafe {
            let p = groups_mut(segment.p.slice_mut(from, to)?);
            let (factors, decay) = self.prologue.decay()?;
            let g = groups(segment.g.slice(from, to)?);
            let state = each(|j| segment.state()[j].slice_mut(from, to).map(groups_mut))?;
            self.run(p, Decayed { g, factors, decay }, state);
        }
        Some(())
    }

    /// Updates native arrays and runs the epilogue, which may update an average, write a copy in
    /// bfloat16 and clear the gradient. Returns `None`, having changed nothing, for other arrays
    /// and epilogues.
    ///
    /// # Safety
    /// As for [`update`].
    unsafe fn follow<const S: usize>(self, epilogue: &Epilogue<'_, T>) -> Option<()>
    where
        R: Rule<T, S>,
    {
        let (segment, (from, to)) = (self.segment, self.range);
        if epilogue.iterate.is_some() {
            return None;
        }
        // SAFETY: by this function's contract the range is inside all arrays and no other code
        // accesses these elements. `Segment::new` checked that the parameter is writable, and
        // `Epilogue::check` that the targets are writable and as long as the parameter.
        unsafe {
            let p = groups_mut(segment.p.slice_mut(from, to)?);
            let copy = match &epilogue.copy {
                Some(copy) => Some(copy.nearest_mut(from, to)?),
                None => None,
            };
            let average = match &epilogue.average {
                Some((average, weight)) => Some(Average {
                    average: groups_mut(average.slice_mut(from, to)?),
                    weight: T::from_f64(*weight),
                }),
                None => None,
            };
            match (average, copy) {
                // A weight of 1 copies.
                (Some(average), _) if average.weight == T::ONE => None,
                (Some(average), Some(copy)) => {
                    let targets = (average, copy);
                    self.finish(epilogue, Followed { p, targets })
                }
                (Some(targets), None) => self.finish(epilogue, Followed { p, targets }),
                (None, Some(targets)) => self.finish(epilogue, Followed { p, targets }),
                (None, None) => self.finish(epilogue, p),
            }
        }
    }

    /// Updates `p`, which includes the targets of the epilogue, and clears the gradient if the
    /// epilogue does.
    ///
    /// # Safety
    /// As for [`update`].
    unsafe fn finish<const S: usize>(
        self,
        epilogue: &Epilogue<'_, T>,
        p: impl ColumnMut<T>,
    ) -> Option<()>
    where
        R: Rule<T, S>,
    {
        let (segment, (from, to)) = (self.segment, self.range);
        // SAFETY: by this function's contract the range is inside all arrays and no other code
        // accesses these elements. `Segment::new` checked that state is writable, and
        // `Segment::with_epilogue` that a gradient to be cleared is.
        unsafe {
            let state = each(|j| segment.state()[j].slice_mut(from, to).map(groups_mut))?;
            if epilogue.clear_gradient {
                let g = groups_mut(segment.g.slice_mut(from, to)?);
                self.run_after(p, Cleared(g), state)
            } else {
                self.run_after(p, groups(segment.g.slice(from, to)?), state)
            }
        }
    }

    /// Runs the loop with the prologue.
    fn run_after<const S: usize>(
        self,
        p: impl ColumnMut<T>,
        g: impl Column<T>,
        state: [impl ColumnMut<T>; S],
    ) -> Option<()>
    where
        R: Rule<T, S>,
    {
        match self.prologue.plain() {
            Some(scale) => self.run(p, Scaled(g, scale), state),
            None => {
                let (factors, decay) = self.prologue.decay()?;
                self.run(p, Decayed { g, factors, decay }, state);
            }
        }
        Some(())
    }

    fn run<const S: usize>(
        self,
        p: impl ColumnMut<T>,
        g: impl Gradient<T>,
        state: [impl ColumnMut<T>; S],
    ) where
        R: Rule<T, S>,
    {
        self.tier.run(InRegisters {
            rule: self.rule,
            p,
            g,
            state,
            number: PhantomData,
        });
    }
}

/// A gradient after its prologue.
trait Gradient<T> {
    /// Returns the number of groups.
    fn groups(&self) -> usize;
    /// Prefetches the start of a group, which may be outside.
    fn prefetch(&self, index: usize);
    /// Returns a group. `p` is that of the parameter.
    fn read(&mut self, index: usize, p: &[T; GROUP]) -> [T; GROUP];
}

/// A gradient times a factor.
struct Scaled<G, T>(G, T);

impl<T: Float, G: Column<T>> Gradient<T> for Scaled<G, T> {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.0.groups()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        self.0.prefetch(index);
    }
    #[inline(always)]
    fn read(&mut self, index: usize, _p: &[T; GROUP]) -> [T; GROUP] {
        let mut g = self.0.read(index);
        for i in 0..GROUP {
            g[i] = g[i] * self.1;
        }
        g
    }
}

/// A gradient that is multiplied by two factors and to which weight decay is added.
struct Decayed<G, T> {
    g: G,
    factors: [T; 2],
    decay: T,
}

impl<T: Float, G: Column<T>> Gradient<T> for Decayed<G, T> {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.g.groups()
    }
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        self.g.prefetch(index);
    }
    #[inline(always)]
    fn read(&mut self, index: usize, p: &[T; GROUP]) -> [T; GROUP] {
        let mut g = self.g.read(index);
        for i in 0..GROUP {
            g[i] = g[i] * self.factors[0] * self.factors[1] + self.decay * p[i];
        }
        g
    }
}

/// Returns the whole groups of an array.
fn groups<T>(array: &[T]) -> &[[T; GROUP]] {
    array.as_chunks().0
}

/// The same, for writing.
fn groups_mut<T>(array: &mut [T]) -> &mut [[T; GROUP]] {
    array.as_chunks_mut().0
}

/// Returns the encoding of an array in 8 bits.
#[inline(always)]
const fn codes_of(spec: StateSpec) -> Encoding {
    match spec.role {
        Role::SecondMoment => Encoding::Squares,
        _ => Encoding::Signed,
    }
}

/// Returns `f` of every index, unless it returns `None` for one.
fn each<U, const S: usize>(f: impl Fn(usize) -> Option<U>) -> Option<[U; S]> {
    let found: [Option<U>; S] = std::array::from_fn(f);
    let all = found.iter().all(Option::is_some);
    all.then(|| found.map(|value| value.expect("all are some")))
}

/// The encoding of a parameter, which is never in 8 bits.
const PARAMETER: Encoding = Encoding::F32;

/// Groups from those that are updated to those that are prefetched. Two threads of Zen 3 on 16 Mi
/// elements of AdamW take 0.8 times as long with moments in 8 bits or with an average as without
/// prefetching, 0.9 with clipping by norm and weight decay, and nearly as long with bfloat16.
const AHEAD: usize = 16;

/// The loop. All columns have the same number of groups.
struct InRegisters<T, R, P, G, M, const S: usize> {
    rule: R,
    p: P,
    g: G,
    state: [M; S],
    number: PhantomData<T>,
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
    G: Gradient<T>,
    M: ColumnMut<T>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            rule,
            mut p,
            mut g,
            mut state,
            ..
        } = self;
        let n = p.groups();
        assert!(g.groups() == n);
        for_each_state!(j in 0..S {
            assert!(state[j].groups() == n);
        });
        let mut p_run = P::NO_RUN;
        let mut runs = [M::NO_RUN; S];
        let mut start = 0;
        while start < n {
            p.enter(&mut p_run, start);
            for_each_state!(j in 0..S {
                state[j].enter(&mut runs[j], start);
            });
            for index in start..n.min(start + PER_RUN) {
                isa::one_iteration();
                p.prefetch(index + AHEAD);
                g.prefetch(index + AHEAD);
                for_each_state!(j in 0..S {
                    state[j].prefetch(index + AHEAD);
                });
                let mut new_p = p.read(&p_run, index, PARAMETER);
                let gradient = g.read(index, &new_p);
                let mut new = [[T::ZERO; GROUP]; S];
                for_each_state!(j in 0..S {
                    new[j] = state[j].read(&runs[j], index, codes_of(R::STATE[j]));
                });
                for i in 0..GROUP {
                    let mut old = [T::ZERO; S];
                    for j in 0..S {
                        old[j] = new[j][i];
                    }
                    let (updated, moved) = rule.update(new_p[i], gradient[i], old);
                    new_p[i] = updated;
                    for j in 0..S {
                        new[j][i] = moved[j];
                    }
                }
                p.write(&mut p_run, index, new_p, PARAMETER);
                for_each_state!(j in 0..S {
                    state[j].write(&mut runs[j], index, new[j], codes_of(R::STATE[j]));
                });
            }
            p.leave(&mut p_run, start, PARAMETER);
            for_each_state!(j in 0..S {
                state[j].leave(&mut runs[j], start, codes_of(R::STATE[j]));
            });
            start += PER_RUN;
        }
        if n > 0 {
            p.finish(&p_run, PARAMETER);
            for_each_state!(j in 0..S {
                state[j].finish(&runs[j], codes_of(R::STATE[j]));
            });
        }
    }
}
