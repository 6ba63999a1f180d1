//! Arrays of any strides, counted in elements: whether they are flat in some order of their elements,
//! and copies of those that are not.

use std::ops::Range;

use crate::memory::numpy::Address;

/// The strides of an array in C order.
pub(crate) fn c_order(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![0; shape.len()];
    let mut next: i64 = 1;
    for (stride, &dim) in strides.iter_mut().zip(shape).rev() {
        *stride = next;
        next = next.wrapping_mul(dim.max(1) as i64);
    }
    strides
}

/// Whether strides lead to the same elements in the same order of memory. Where there is one index
/// alone, its stride has no meaning.
pub(crate) fn agree(shape: &[usize], a: &[i64], b: &[i64]) -> bool {
    a == b
        || shape.contains(&0)
        || shape
            .iter()
            .zip(a.iter().zip(b))
            .all(|(&dim, (a, b))| dim == 1 || a == b)
}

/// Whether the elements fill a stretch of memory, each place once, in whatever order.
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

/// An array that a step works on a copy of, since it does not lie as its parameter does.
pub(crate) struct Staged {
    /// Where its element at 0 is.
    data: Address,
    width: usize,
    shape: Vec<usize>,
    strides: Vec<i64>,
    /// The strides of the copy, which is dense.
    order: Vec<i64>,
    /// Of eight bytes, so that every element is aligned.
    copy: Vec<u64>,
    /// Whether a step reads it, and writes it.
    pub(crate) read: bool,
    pub(crate) written: bool,
}

impl Staged {
    /// An array of `width` bytes per element, and room for its copy in the order of other strides.
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

    /// Where the copy is. It stays there however this is moved.
    pub(crate) fn copy(&mut self) -> Address {
        Address(self.copy.as_mut_ptr().cast())
    }

    /// Fills the copy.
    ///
    /// # Safety
    /// The array is alive at its address, and nobody writes it meanwhile.
    pub(crate) unsafe fn gather(&mut self) {
        let (from, to, width) = (self.data, self.copy(), self.width);
        walk(&self.shape, &self.strides, &self.order, |a, b| {
            // SAFETY: `a` leads to an element of the array, alive by this function's contract, and `b`
            // to one of the copy, which is dense in its order and has as many.
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
    /// The array is alive at its address, and nobody else has it meanwhile.
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

    /// The addresses of its bytes, sorted: none is in two of them, unless two elements share it.
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

/// Calls `visit` with where each element is by either strides, counted in elements.
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
