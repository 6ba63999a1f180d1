//! Running averages of parameters and gradients.

use crate::exec::isa::{self, Kernel};
use crate::exec::pool;
use crate::numeric::float::Float;
use crate::storage::precision::Pair;

/// Moves the first array of every pair towards the second: `a += weight (x - a)`. A weight of 1
/// copies the second array.
///
/// # Panics
/// The lengths of a pair differ, or its first array is read-only.
pub fn lerp<T: Float>(pairs: Vec<Pair<'_, T>>, weight: f64) {
    for (a, x) in &pairs {
        assert_eq!(
            a.len(),
            x.len(),
            "a value must have the length of its average"
        );
        assert!(a.is_writable(), "averages must be writable");
    }
    let tier = isa::current();
    let weight = T::from_f64(weight);
    let lengths = pairs.iter().map(|(a, _)| a.len());
    // Reads two arrays and writes one. AdamW reads four arrays and writes three.
    pool::for_ranges(lengths, 0.5, |owner, range| {
        let (a, x) = &pairs[owner];
        // SAFETY: `for_ranges` gives each range once, inside `a` and without overlap, and `x` is as
        // long as `a`. `a` is writable, and this function owns the views.
        unsafe { a.update_by(x, range, tier, |a, x| tier.run(Lerp { a, x, weight })) };
    });
}

/// `a += weight (x - a)`. A weight of 1 copies `x` exactly, even if `a` is NaN.
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
    use crate::exec::pool::CHUNK;
    use crate::exec::scratch::TILE;
    use crate::storage::Half;
    use crate::storage::view::StorageView;

    #[test]
    fn every_element_of_every_pair_moves() {
        let mut a = [vec![1.0_f32; 3 * CHUNK + 5], vec![], vec![2.0]];
        let mut x: Vec<_> = a.iter().map(|a| vec![4.0; a.len()]).collect();
        let averages = a.iter_mut().map(|a| StorageView::native(a));
        let values = x.iter_mut().map(|x| StorageView::native(x));
        lerp(averages.zip(values).collect(), 0.25);
        assert!(a[0].iter().all(|&a| a == 1.75));
        assert_eq!(a[2], [2.5]);
    }

    #[test]
    fn values_may_be_stored_in_low_precision() {
        let n = CHUNK + TILE + 3;
        let mut a = vec![0.0_f32; n];
        // bfloat16 is the upper half of float32.
        let x: Vec<_> = (0..n).map(|i| ((i % 200) as f32).to_bits()).collect();
        let half: Vec<_> = x.iter().map(|bits| (bits >> 16) as u16).collect();
        lerp(
            vec![(
                StorageView::native(&mut a),
                StorageView::read_half(Half::Bf16, &half),
            )],
            0.5,
        );
        assert!((0..n).all(|i| a[i] == (i % 200) as f32 / 2.0));
    }

    #[test]
    fn a_weight_of_one_copies() {
        let (mut a, x) = ([1e30, f64::NAN, f64::INFINITY], [1e-30, 1.0, -2.0]);
        lerp(
            vec![(StorageView::native(&mut a), StorageView::read(&x))],
            1.0,
        );
        assert_eq!(a, x);
    }
}
