//! The perturbation of sharpness-aware minimization (Foret et al., 2021; adaptive: Kwon et al.,
//! 2021).

use crate::exec::isa::{self, Kernel};
use crate::exec::pool::{self, CHUNK};
use crate::exec::scratch::Scratch;
use crate::numeric::float::Float;
use crate::reduce::{self, Measure, Squares};
use crate::storage::view::StorageView;

/// Returns the sum of `g^2`, or of `(p g)^2` if `adaptive`, in `f64`.
///
/// # Panics
/// The lengths differ.
pub fn squares<T: Float>(p: &StorageView<'_, T>, g: &StorageView<'_, T>, adaptive: bool) -> f64 {
    check(p, g);
    let tier = isa::current();
    let what = Squares;
    let join = |a, b| what.join(a, b);
    let sums = reduce::blockwise(&[g.len()], g.len() / 2, join, |_, range| {
        let (from, n) = (range.start, range.len());
        let mut scratch = Scratch::<T, 3>::new(reduce::BLOCK);
        let [loaded_g, loaded_p, products] = scratch.arrays();
        // SAFETY: the block is inside `g`, whose view is borrowed as shared, so no other code
        // writes it.
        let g = unsafe { g.read_into(from, &mut loaded_g[..n], tier) };
        if !adaptive {
            return reduce::block(g, what, tier);
        }
        // SAFETY: as for `g`, which is as long.
        let p = unsafe { p.read_into(from, &mut loaded_p[..n], tier) };
        let out = &mut products[..n];
        tier.run(Products { p, g, out });
        reduce::block(out, what, tier)
    });
    sums[0]
}

/// Adds `factor * g`, or `factor * p^2 g` if `adaptive`, to every element of `p`.
///
/// # Panics
/// The lengths differ, or `p` is read-only.
pub fn perturb<T: Float>(
    p: StorageView<'_, T>,
    g: &StorageView<'_, T>,
    factor: f64,
    adaptive: bool,
) {
    check(&p, g);
    assert!(p.is_writable(), "parameters must be writable");
    let tier = isa::current();
    let factor = T::from_f64(factor);
    pool::for_ranges([p.len()], 0.5, |_, range| {
        let f = |p: &mut [T], g: &[T]| {
            tier.run(Perturb {
                p,
                g,
                factor,
                adaptive,
            });
        };
        // SAFETY: `for_ranges` gives each range once, inside `p` and without overlap, and `g` is as
        // long as `p`. `p` is writable and owned by this function, and `g` is borrowed as shared,
        // so no other code writes it.
        unsafe { p.update_by(g, range, tier, f) };
    });
}

fn check<T: Float>(p: &StorageView<'_, T>, g: &StorageView<'_, T>) {
    assert_eq!(
        p.len(),
        g.len(),
        "a gradient must have the length of its parameter"
    );
}

/// Swaps all elements of two arrays.
///
/// # Panics
/// The lengths differ.
pub fn exchange<T: Send>(a: &mut [T], b: &mut [T]) {
    let n = a.len();
    assert_eq!(n, b.len(), "a and b must have the same length");
    let b = pool::Shared::new(b);
    pool::for_chunks(a, CHUNK, n / 2, |from, a| {
        // SAFETY: chunks of `a`, and therefore the same ranges of `b`, do not overlap, and each
        // chunk is processed once.
        a.swap_with_slice(unsafe { b.slice_mut(from, from + a.len()) });
    });
}

struct Products<'a, T> {
    p: &'a [T],
    g: &'a [T],
    out: &'a mut [T],
}

impl<T: Float> Kernel for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.out.len();
        let (p, g) = (&self.p[..n], &self.g[..n]);
        for i in 0..n {
            self.out[i] = p[i] * g[i];
        }
    }
}

struct Perturb<'a, T> {
    p: &'a mut [T],
    g: &'a [T],
    factor: T,
    adaptive: bool,
}

impl<T: Float> Kernel for Perturb<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.p.len();
        let g = &self.g[..n];
        for i in 0..n {
            let p = self.p[i];
            // The condition is the same for all elements, so the compiler moves it out of the loop.
            let scale = if self.adaptive { p * p } else { T::ONE };
            self.p[i] = p + self.factor * (scale * g[i]);
        }
    }
}
