//! Running averages of parameters and gradients.

use crate::float::Float;
use crate::isa::{self, Kernel};
use crate::threads::{self, CHUNK};

/// Moves every average towards its value: `a += weight (x - a)`. A weight of 1 copies.
///
/// # Panics
/// The lengths of a pair differ.
pub fn lerp<T: Float>(pairs: Vec<(&mut [T], &[T])>, weight: f64) {
    let tier = isa::current();
    let weight = T::from_f64(weight);
    let mut pieces = Vec::new();
    let mut elements = 0;
    for (a, x) in pairs {
        assert_eq!(a.len(), x.len(), "a value has the length of its average");
        elements += a.len();
        pieces.extend(a.chunks_mut(CHUNK).zip(x.chunks(CHUNK)));
    }
    // Reads two arrays and writes one, where AdamW has seven streams.
    threads::run_each(pieces, elements / 2, |(a, x)| {
        tier.run(Lerp { a, x, weight });
    });
}

/// An average after it moved towards `x`. A weight of 1 arrives to the bit, from NaN too.
#[inline(always)]
pub(crate) fn moved<T: Float>(a: T, x: T, weight: T) -> T {
    // The same for all elements: the compiler makes two loops of it.
    if weight == T::ONE {
        x
    } else {
        a + weight * (x - a)
    }
}

struct Lerp<'a, T> {
    a: &'a mut [T],
    x: &'a [T],
    weight: T,
}

impl<T: Float> Kernel for Lerp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.a.len();
        let x = &self.x[..n];
        for i in 0..n {
            self.a[i] = moved(self.a[i], x[i], self.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_of_every_pair_moves() {
        let mut a = [vec![1.0_f32; 3 * CHUNK + 5], vec![], vec![2.0]];
        let x: Vec<_> = a.iter().map(|a| vec![4.0_f32; a.len()]).collect();
        let pairs = a
            .iter_mut()
            .zip(&x)
            .map(|(a, x)| (&mut **a, &**x))
            .collect();
        lerp(pairs, 0.25);
        assert!(a[0].iter().all(|&a| a == 1.75));
        assert_eq!(a[2], [2.5]);
    }

    #[test]
    fn a_weight_of_one_copies() {
        let (mut a, x) = ([1e30, f64::NAN, f64::INFINITY], [1e-30, 1.0, -2.0]);
        lerp(vec![(&mut a, &x)], 1.0);
        assert_eq!(a, x);
    }
}
