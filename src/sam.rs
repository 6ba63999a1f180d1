//! The perturbation of sharpness-aware minimization (Foret et al., 2021; adaptive: Kwon et al.,
//! 2021).

use crate::float::Float;
use crate::isa::{self, Kernel};
use crate::reduce;
use crate::threads::{self, CHUNK};

/// The sum of `g^2`, or adaptive of `(p g)^2`, in `f64`.
///
/// # Panics
/// The lengths differ.
pub fn squares<T: Float>(p: &[T], g: &[T], adaptive: bool) -> f64 {
    assert_eq!(
        p.len(),
        g.len(),
        "a gradient has the length of its parameter"
    );
    if !adaptive {
        return reduce::measure(&[g], reduce::Squares { scale: 1.0 })[0];
    }
    let mut products = vec![T::ZERO; g.len()];
    let tier = isa::current();
    threads::for_chunks(&mut products, CHUNK, g.len() / 2, |from, out| {
        let to = from + out.len();
        let (p, g) = (&p[from..to], &g[from..to]);
        tier.run(Products { p, g, out });
    });
    reduce::measure(&[&products], reduce::Squares { scale: 1.0 })[0]
}

/// Adds `factor * g`, or adaptive `factor * p^2 g`, to every element of `p`.
///
/// # Panics
/// The lengths differ.
pub fn perturb<T: Float>(p: &mut [T], g: &[T], factor: f64, adaptive: bool) {
    assert_eq!(
        p.len(),
        g.len(),
        "a gradient has the length of its parameter"
    );
    let tier = isa::current();
    let n = p.len();
    let factor = T::from_f64(factor);
    threads::for_chunks(p, CHUNK, n / 2, |from, p| {
        let g = &g[from..from + p.len()];
        tier.run(Perturb {
            p,
            g,
            factor,
            adaptive,
        });
    });
}

/// Swaps all elements of two arrays.
///
/// # Panics
/// The lengths differ.
pub fn exchange<T: Send>(a: &mut [T], b: &mut [T]) {
    let n = a.len();
    assert_eq!(n, b.len(), "both have one length");
    let b = threads::Shared::new(b);
    threads::for_chunks(a, CHUNK, n / 2, |from, a| {
        // SAFETY: chunks do not overlap, and each comes once.
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
            // The same for all elements: the compiler makes two loops of it.
            let scale = if self.adaptive { p * p } else { T::ONE };
            self.p[i] = p + self.factor * (scale * g[i]);
        }
    }
}
