//! Arrays with arbitrary strides, counted in elements: whether they are dense, and copies of those
//! that are not.

use std::ops::Range;

use crate::memory::numpy::Address;

/// Returns the strides of an array in C order.
pub(crate) fn c_order(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![0; shape.len()];
    let mut next: i64 = 1;
    for (stride, &dim) in strides.iter_mut().zip(shape).rev() {
        *stride = next;
        next = next.wrapping_mul(dim.max(1) as i64);
    }
    strides
}

/// Returns whether an array has the strides of C order, also in dimensions of size 1.
pub(crate) fn is_c_order(shape: &[i64], strides: &[i64]) -> bool {
    let mut next: i64 = 1;
    shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = stride == next;
        next = next.wrapping_mul(dim.max(1));
        fits
    })
}

/// Returns whether two strides describe the same memory order. The stride of a dimension of size 1
/// does not matter.
pub(crate) fn agree(shape: &[usize], a: &[i64], b: &[i64]) -> bool {
    a == b
        || shape.contains(&0)
        || shape
            .iter()
            .zip(a.iter().zip(b))
            .all(|(&dim, (a, b))| dim == 1 || a == b)
}

/// Returns whether the elements fill one range of memory without gaps and overlaps, in any order.
pub(crate) fn is_dense(shape: &[usize], strides: &[i64]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut dims: Vec<_> = strides.iter().zip(shape).filter(|(_, n)| **n > 1).collect();
    dims.sort_unstable();
    let mut filled: i64 = 1;
    for (&stride, &dim) in dims {
        if stride != filled {
            return false;
        }
        filled = filled.saturating_mul(dim as i64);
    }
    true
}

/// An array that a step copies, because its memory order differs from that of its parameter.
pub(crate) struct Staged {
    /// The address of the first element.
    data: Address,
    width: usize,
    shape: Vec<usize>,
    strides: Vec<i64>,
    /// The strides of the copy, which are dense.
    order: Vec<i64>,
    /// In units of eight bytes, so that every element is aligned.
    copy: Vec<u64>,
    /// Whether a step reads and writes the array.
    pub(crate) read: bool,
    pub(crate) written: bool,
}

impl Staged {
    /// Allocates the copy of an array of `width` bytes per element.
    pub(crate) fn new(
        data: Address,
        width: usize,
        shape: &[usize],
        strides: &[i64],
        order: &[i64],
    ) -> Self {
        let bytes = shape.iter().product::<usize>() * width;
        Self {
            data,
            width,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            order: order.to_vec(),
            copy: vec![0; bytes.div_ceil(8)],
            read: true,
            written: true,
        }
    }

    /// Returns the address of the copy, which does not change when `self` moves.
    pub(crate) fn copy(&mut self) -> Address {
        Address(self.copy.as_mut_ptr().cast())
    }

    /// Fills the copy.
    ///
    /// # Safety
    /// The array is alive at its address, and no other code writes it during this call.
    pub(crate) unsafe fn gather(&mut self) {
        let (from, to, width) = (self.data, self.copy(), self.width);
        walk(&self.shape, &self.strides, &self.order, |a, b| {
            // SAFETY: `a` is the offset of an element of the array, which is alive by this
            // function's contract. `b` is the offset of an element of the copy, which
            // is dense in its order and has the same number of elements.
            unsafe {
                let from = from.0.wrapping_offset(a * width as isize);
                to.0.offset(b * width as isize)
                    .copy_from_nonoverlapping(from, width);
            }
        });
    }

    /// Writes the copy back.
    ///
    /// # Safety
    /// The array is alive at its address, and no other code accesses it during this call.
    pub(crate) unsafe fn scatter(&mut self) {
        let (from, to, width) = (self.copy(), self.data, self.width);
        walk(&self.shape, &self.order, &self.strides, |a, b| {
            // SAFETY: as in `gather`, the other way round.
            unsafe {
                let to = to.0.wrapping_offset(b * width as isize);
                to.copy_from_nonoverlapping(from.0.offset(a * width as isize), width);
            }
        });
    }

    /// Returns the sorted ranges of addresses. They overlap only if elements of the array do.
    pub(crate) fn ranges(&self) -> Vec<Range<usize>> {
        let mut starts = Vec::with_capacity(self.shape.iter().product());
        walk(&self.shape, &self.strides, &self.strides, |a, _| {
            starts.push(
                self.data
                    .0
                    .addr()
                    .wrapping_add_signed(a * self.width as isize),
            );
        });
        starts.sort_unstable();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for start in starts {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end += self.width,
                _ => ranges.push(start..start + self.width),
            }
        }
        ranges
    }
}

/// Calls `visit` with the offsets of each element by both strides.
fn walk(shape: &[usize], a: &[i64], b: &[i64], mut visit: impl FnMut(isize, isize)) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    let (mut at_a, mut at_b) = (0_i64, 0_i64);
    loop {
        visit(at_a as isize, at_b as isize);
        let mut dim = shape.len();
        loop {
            let Some(previous) = dim.checked_sub(1) else {
                return;
            };
            dim = previous;
            index[dim] += 1;
            at_a += a[dim];
            at_b += b[dim];
            if index[dim] < shape[dim] {
                break;
            }
            at_a -= a[dim] * index[dim] as i64;
            at_b -= b[dim] * index[dim] as i64;
            index[dim] = 0;
        }
    }
}
