//! What a loss reads and writes: its input, and its gradient where one is wanted.

use std::marker::PhantomData;

use crate::float::Float;
use crate::isa;

/// The input of a loss and the place of its gradient.
#[derive(Debug)]
pub enum Input<'a, T> {
    /// The value alone.
    Value(&'a [T]),
    /// The gradient goes to the second.
    Gradient(&'a [T], &'a mut [T]),
    /// The gradient replaces the input.
    InPlace(&'a mut [T]),
}

impl<T> Input<'_, T> {
    /// The input itself.
    pub(crate) fn elements(&self) -> &[T] {
        match self {
            Self::Value(x) | Self::Gradient(x, _) => x,
            Self::InPlace(x) => x,
        }
    }
}

/// How the values of the elements or rows become one.
#[derive(Debug)]
pub enum Reduction<'a, T> {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// They stay apart and are written here; the gradient is that of the sum.
    None(&'a mut [T]),
}

impl<T> Reduction<'_, T> {
    /// What the sum of the values is divided by where all items together count for `total`, and
    /// the factor of the gradient: NaN and 0 where nothing counts.
    pub(crate) fn scales(&self, total: f64, loss_scale: f64) -> [f64; 2] {
        match self {
            Self::Mean if total == 0.0 => [f64::NAN, 0.0],
            Self::Mean => [total, loss_scale / total],
            Self::Sum | Self::None(_) => [1.0, loss_scale],
        }
    }
}

/// [`Input`] and [`Reduction`] as the tasks of one call share them: by pointers, because in place
/// the gradient and the input are one. A kernel reads a piece, computes, and writes it.
#[derive(Clone, Copy)]
pub(crate) struct Buffers<'a, T> {
    x: *const T,
    gradient: Option<*mut T>,
    len: usize,
    values: Option<*mut T>,
    items: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointers stand for borrows that could be sent; `new` asks that tasks write apart.
unsafe impl<T: Send> Send for Buffers<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Buffers<'_, T> {}

impl<'a, T: Float> Buffers<'a, T> {
    /// # Safety
    /// While tasks run in parallel, no index is touched by two of them.
    ///
    /// # Panics
    /// The gradient or the values have the wrong length.
    pub(crate) unsafe fn new(
        input: Input<'a, T>,
        reduction: &'a mut Reduction<'_, T>,
        items: usize,
    ) -> Self {
        let values = match reduction {
            Reduction::None(values) => {
                assert_eq!(values.len(), items, "one value per item");
                Some(values.as_mut_ptr())
            }
            Reduction::Mean | Reduction::Sum => None,
        };
        Self {
            values,
            items,
            // SAFETY: the caller's promise.
            ..unsafe { Self::further(input) }
        }
    }

    /// One more input of a loss whose values go with another.
    ///
    /// # Safety
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// The gradient has the wrong length.
    pub(crate) unsafe fn further(input: Input<'a, T>) -> Self {
        let (x, gradient, len) = match input {
            Input::Value(x) => (x.as_ptr(), None, x.len()),
            Input::Gradient(x, gradient) => {
                assert_eq!(x.len(), gradient.len(), "one gradient per element");
                (x.as_ptr(), Some(gradient.as_mut_ptr()), x.len())
            }
            Input::InPlace(x) => {
                let pointer = x.as_mut_ptr();
                (pointer.cast_const(), Some(pointer), x.len())
            }
        };
        Self {
            x,
            gradient,
            len,
            values: None,
            items: 0,
            lifetime: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether a gradient is wanted.
    #[inline(always)]
    pub(crate) fn has_gradient(&self) -> bool {
        self.gradient.is_some()
    }

    /// `n` elements from `start`, and `pad` for the rest.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, start: usize, n: usize, pad: T) -> [T; N] {
        debug_assert!(n <= N && start + n <= self.len);
        // SAFETY: the drivers cut `0..len` into pieces of at most N.
        unsafe { load(self.x.add(start), n, pad) }
    }

    /// Asks for `n` elements from `start`, and for the place of their gradient. They may lie beyond
    /// the end.
    #[inline(always)]
    pub(crate) fn prefetch(&self, start: usize, n: usize) {
        for i in (0..n).step_by(64 / size_of::<T>()) {
            isa::prefetch(self.x.wrapping_add(start + i));
            if let Some(gradient) = self.gradient {
                isa::prefetch(gradient.wrapping_add(start + i));
            }
        }
    }

    /// One element.
    #[inline(always)]
    pub(crate) fn read_one(&self, index: usize) -> T {
        self.read::<1>(index, 1, T::ZERO)[0]
    }

    /// Up to a group of short rows, turned: `tile[j][r]` belongs to class `j` of row `first + r`.
    #[inline(always)]
    pub(crate) fn read_turned<const N: usize>(&self, first: usize, n: usize, tile: &mut [[T; N]]) {
        let classes = tile.len();
        for r in 0..n {
            let start = (first + r) * classes;
            for j in 0..classes {
                tile[j][r] = self.read_one(start + j);
            }
        }
    }

    /// The gradient of what [`read_turned`](Self::read_turned) read, where one is wanted.
    #[inline(always)]
    pub(crate) fn write_turned<const N: usize>(&self, first: usize, n: usize, tile: &[[T; N]]) {
        let classes = tile.len();
        if self.has_gradient() {
            let gradient = self.gradient(first * classes, n * classes);
            for r in 0..n {
                for j in 0..classes {
                    gradient[r * classes + j] = tile[j][r];
                }
            }
        }
    }

    /// The gradient of `n` elements from `start`, where one is wanted.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, start: usize, n: usize, piece: &[T; N]) {
        debug_assert!(n <= N && start + n <= self.len);
        if let Some(gradient) = self.gradient {
            // SAFETY: in bounds as in `read`; `new` was promised that no other task is here.
            unsafe { store(gradient.add(start), n, piece) }
        }
    }

    /// The gradient of `n` elements from `start`; empty where none is wanted.
    #[inline(always)]
    #[expect(clippy::mut_from_ref)]
    pub(crate) fn gradient(&self, start: usize, n: usize) -> &mut [T] {
        debug_assert!(start + n <= self.len);
        match self.gradient {
            // SAFETY: as in `write`; a kernel does not read or write elsewise while it holds this.
            Some(gradient) => unsafe { std::slice::from_raw_parts_mut(gradient.add(start), n) },
            None => &mut [],
        }
    }

    /// The values of `n` items from `start`, where they stay apart.
    #[inline(always)]
    pub(crate) fn write_values<V: Float, const N: usize>(
        &self,
        start: usize,
        n: usize,
        piece: &[V; N],
    ) {
        debug_assert!(n <= N && start + n <= self.items);
        if let Some(values) = self.values {
            for (i, &value) in piece[..n].iter().enumerate() {
                // SAFETY: as in `write`.
                unsafe { values.add(start + i).write(T::from_f64(value.to_f64())) }
            }
        }
    }
}

/// The first `n` of a piece, and `pad` for the rest. A whole piece is a copy of constant size,
/// which stays in registers.
///
/// # Safety
/// `n <= N` elements can be read.
#[inline(always)]
unsafe fn load<T: Copy, const N: usize>(from: *const T, n: usize, pad: T) -> [T; N] {
    if n == N {
        // SAFETY: the caller's promise; an array is as aligned as its elements.
        return unsafe { from.cast::<[T; N]>().read() };
    }
    let mut piece = [pad; N];
    // SAFETY: the caller's promise; `piece` is fresh.
    unsafe { std::ptr::copy_nonoverlapping(from, piece.as_mut_ptr(), n) };
    piece
}

/// # Safety
/// `n <= N` elements can be written.
#[inline(always)]
unsafe fn store<T: Copy, const N: usize>(to: *mut T, n: usize, piece: &[T; N]) {
    if n == N {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[T; N]>().write(*piece) }
    } else {
        // SAFETY: the caller's promise; `piece` is a reference, so it does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), to, n) }
    }
}

/// A piece of a shared slice, padded with zeros.
#[inline(always)]
pub(crate) fn piece<T: Float, const N: usize>(from: &[T], start: usize, n: usize) -> [T; N] {
    let from = &from[start..start + n];
    assert!(n <= N, "a piece holds N elements");
    // SAFETY: `from` has n elements, and n <= N.
    unsafe { load(from.as_ptr(), n, T::ZERO) }
}

/// Results of blocks, each written by the task that computed it.
pub(crate) struct Partials(Vec<std::sync::atomic::AtomicU64>);

impl Partials {
    pub(crate) fn new(blocks: usize) -> Self {
        Self(
            (0..blocks)
                .map(|_| std::sync::atomic::AtomicU64::new(0))
                .collect(),
        )
    }

    pub(crate) fn set(&self, block: usize, sum: f64) {
        self.0[block].store(sum.to_bits(), std::sync::atomic::Ordering::Relaxed);
    }

    /// All of them in one, by the fixed tree.
    pub(crate) fn total(self) -> f64 {
        let sums: Vec<f64> = self
            .0
            .into_iter()
            .map(|x| f64::from_bits(x.into_inner()))
            .collect();
        crate::reduce::tree(&sums)
    }
}
