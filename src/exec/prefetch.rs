//! Prefetching for loops with so much arithmetic per element that the next loads wait for it.

use crate::exec::isa;

/// The number of elements above which arrays are assumed not to fit in a cache.
pub(crate) const LARGE: usize = if cfg!(miri) { 1 << 10 } else { 1 << 20 };

/// The elements from those that a loop works on to those that it prefetches. 256 to 2048 are alike.
const AHEAD: usize = 1024;

/// Returns how many elements a loop over so many should prefetch ahead, 0 for none.
pub(crate) fn ahead(elements: usize) -> usize {
    if elements > LARGE { AHEAD } else { 0 }
}

/// Prefetches `n` elements, which may be out of bounds.
#[inline(always)]
pub(crate) fn prefetch<T>(from: *const T, n: usize) {
    for i in (0..n).step_by(64 / size_of::<T>()) {
        isa::prefetch(from.wrapping_add(i));
    }
}
