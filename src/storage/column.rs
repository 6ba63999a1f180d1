//! Arrays that a loop reads and writes group by group, with the conversion in registers.

use super::half::{Bf16, Format};
use super::{Draws, GROUP, Noise, STRETCH};
use crate::numeric::float::Float;

/// An array of groups that is read.
pub(crate) trait Column<T> {
    /// Returns the number of elements.
    fn len(&self) -> usize;
    /// Returns the group from `at`.
    fn read(&mut self, at: usize) -> [T; GROUP];
}

/// Elements of a run of groups, all of which have random numbers under one key.
pub(crate) const RUN: usize = 256;

const _: () = assert!(RUN.is_multiple_of(GROUP) && STRETCH.is_multiple_of(RUN as u64));

/// An array of groups that is updated from the first to the last.
pub(crate) trait ColumnMut<T>: Column<T> {
    /// Prepares for the run from `start`.
    fn enter(&mut self, _start: usize) {}
    /// Writes the next group of the run, which is that from `at`.
    fn write(&mut self, at: usize, new: [T; GROUP]);
}

/// bfloat16 numbers.
pub(crate) struct Halves<'a>(pub(crate) &'a [u16]);

/// bfloat16 numbers with stochastic rounding.
pub(crate) struct HalvesMut<'a> {
    halves: &'a mut [u16],
    noise: Noise,
    draws: Draws,
}

impl<'a> HalvesMut<'a> {
    /// Creates a column, unless `noise` starts inside a run.
    pub(super) fn new(halves: &'a mut [u16], noise: Noise) -> Option<Self> {
        noise.start.is_multiple_of(RUN as u64).then_some(Self {
            halves,
            noise,
            draws: Draws::default(),
        })
    }
}

#[inline(always)]
fn group<U>(array: &[U], at: usize) -> &[U; GROUP] {
    array[at..at + GROUP].try_into().expect("GROUP elements")
}

#[inline(always)]
fn group_mut<U>(array: &mut [U], at: usize) -> &mut [U; GROUP] {
    (&mut array[at..at + GROUP])
        .try_into()
        .expect("GROUP elements")
}

/// Applies `f` to every element of a group.
#[inline(always)]
fn map<U: Copy, V: Copy + Default>(group: &[U; GROUP], f: impl Fn(U) -> V) -> [V; GROUP] {
    let mut out = [V::default(); GROUP];
    for i in 0..GROUP {
        out[i] = f(group[i]);
    }
    out
}

impl<T: Copy> Column<T> for &[T] {
    #[inline(always)]
    fn len(&self) -> usize {
        (**self).len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        *group(self, at)
    }
}

impl<T: Copy> Column<T> for &mut [T] {
    #[inline(always)]
    fn len(&self) -> usize {
        (**self).len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        *group(self, at)
    }
}

impl<T: Copy> ColumnMut<T> for &mut [T] {
    #[inline(always)]
    fn write(&mut self, at: usize, new: [T; GROUP]) {
        *group_mut(self, at) = new;
    }
}

impl<T: Float> Column<T> for Halves<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        map(&Bf16::widen(group(self.0, at)), T::from_f32)
    }
}

impl<T: Float> Column<T> for HalvesMut<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.halves.len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        map(&Bf16::widen(group(self.halves, at)), T::from_f32)
    }
}

impl<T: Float> ColumnMut<T> for HalvesMut<'_> {
    #[inline(always)]
    fn enter(&mut self, start: usize) {
        self.draws = self.noise.skip(start).draws();
    }
    #[inline(always)]
    fn write(&mut self, at: usize, new: [T; GROUP]) {
        let single = map(&new, T::to_f32);
        *group_mut(self.halves, at) = Bf16::narrow(&single, &self.draws.next());
    }
}

/// An array that is set to 0 once it is read.
pub(crate) struct Cleared<'a, T>(pub(crate) &'a mut [T]);

impl<T: Float> Column<T> for Cleared<'_, T> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        std::mem::replace(group_mut(self.0, at), [T::ZERO; GROUP])
    }
}

/// An array with an average that moves towards what is written: `average += weight (new - average)`.
pub(crate) struct Averaged<'a, P, T> {
    pub(crate) p: P,
    pub(crate) average: &'a mut [T],
    pub(crate) weight: T,
}

impl<T: Float, P: Column<T>> Column<T> for Averaged<'_, P, T> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.p.len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        self.p.read(at)
    }
}

impl<T: Float, P: ColumnMut<T>> ColumnMut<T> for Averaged<'_, P, T> {
    #[inline(always)]
    fn write(&mut self, at: usize, new: [T; GROUP]) {
        let average = group_mut(self.average, at);
        let mut moved = *average;
        for i in 0..GROUP {
            moved[i] += self.weight * (new[i] - moved[i]);
        }
        *average = moved;
        self.p.write(at, new);
    }
}

/// An array with a bfloat16 copy of what is written, rounded to nearest.
pub(crate) struct Copied<'a, P> {
    pub(crate) p: P,
    pub(crate) copy: &'a mut [u16],
}

impl<T: Float, P: Column<T>> Column<T> for Copied<'_, P> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.p.len()
    }
    #[inline(always)]
    fn read(&mut self, at: usize) -> [T; GROUP] {
        self.p.read(at)
    }
}

impl<T: Float, P: ColumnMut<T>> ColumnMut<T> for Copied<'_, P> {
    #[inline(always)]
    fn write(&mut self, at: usize, new: [T; GROUP]) {
        *group_mut(self.copy, at) = map(&new, |x| Bf16.nearest(x.to_f32()));
        self.p.write(at, new);
    }
}
