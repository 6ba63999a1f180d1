//! Running averages of parameters and gradients.

use crate::exec::isa::{self, Kernel};
use crate::exec::pool::{self, CHUNK};
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::storage::view::StorageView;

/// Moves every average towards its value: `a += weight (x - a)`. A weight of 1 copies.
///
/// # Panics
/// The lengths of a pair differ.
pub fn lerp<T: Float>(pairs: Vec<(&mut [T], StorageView<'_, T>)>, weight: f64) {
    let tier = isa::current();
    let weight = T::from_f64(weight);
    let (averages, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut pieces = Vec::new();
    let mut elements = 0;
    for (a, x) in averages.into_iter().zip(&values) {
        assert_eq!(a.len(), x.len(), "a value has the length of its average");
        elements += a.len();
        let starts = (0..a.len()).step_by(CHUNK);
        pieces.extend(
            a.chunks_mut(CHUNK)
                .zip(starts)
                .map(|(a, from)| (a, x, from)),
        );
    }
    // Reads two arrays and writes one, where AdamW has seven streams.
    pool::run_each(pieces, elements / 2, |(a, x, from)| {
        // SAFETY: inside, as the lengths are equal, and nobody writes values that are borrowed.
        if let Some(x) = unsafe { x.slice(from, from + a.len()) } {
            tier.run(Lerp { a, x, weight });
            return;
        }
        let mut scratch = Scratch::<T, 1>::new(TILE);
        let [tile] = scratch.arrays();
        for (a, start) in a.chunks_mut(TILE).zip((from..).step_by(TILE)) {
            let loaded = &mut tile[..a.len()];
            // SAFETY: inside, as the lengths are equal, and nobody writes values that are borrowed.
            unsafe { x.load(start, loaded, tier) };
            tier.run(Lerp {
                a,
                x: loaded,
                weight,
            });
        }
    });
}

/// `a += weight (x - a)`; a weight of 1 arrives to the bit, from NaN too.
pub(crate) struct Lerp<'a, T> {
    pub(crate) a: &'a mut [T],
    pub(crate) x: &'a [T],
    pub(crate) weight: T,
}

impl<T: Float> Kernel for Lerp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.a.len();
        let x = &self.x[..n];
        if self.weight == T::ONE {
            self.a.copy_from_slice(x);
            return;
        }
        for i in 0..n {
            self.a[i] += self.weight * (x[i] - self.a[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Half;

    #[test]
    fn every_element_of_every_pair_moves() {
        let mut a = [vec![1.0_f32; 3 * CHUNK + 5], vec![], vec![2.0]];
        let mut x: Vec<_> = a.iter().map(|a| vec![4.0; a.len()]).collect();
        let values = x.iter_mut().map(|x| StorageView::native(x));
        lerp(a.iter_mut().map(|a| &mut **a).zip(values).collect(), 0.25);
        assert!(a[0].iter().all(|&a| a == 1.75));
        assert_eq!(a[2], [2.5]);
    }

    #[test]
    fn values_may_be_kept_in_fewer_bits() {
        let n = CHUNK + TILE + 3;
        let mut a = vec![0.0_f32; n];
        // bfloat16 is the upper half of float32.
        let x: Vec<_> = (0..n).map(|i| ((i % 200) as f32).to_bits()).collect();
        let half: Vec<_> = x.iter().map(|bits| (bits >> 16) as u16).collect();
        lerp(
            vec![(&mut a, StorageView::read_half(Half::Bf16, &half))],
            0.5,
        );
        assert!((0..n).all(|i| a[i] == (i % 200) as f32 / 2.0));
    }

    #[test]
    fn a_weight_of_one_copies() {
        let (mut a, x) = ([1e30, f64::NAN, f64::INFINITY], [1e-30, 1.0, -2.0]);
        lerp(vec![(&mut a, StorageView::read(&x))], 1.0);
        assert_eq!(a, x);
    }
}
