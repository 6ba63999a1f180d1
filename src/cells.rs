//! One array of a parameter, however its numbers are kept.
//!
//! Rules compute in `f32` or `f64`. An array that is kept in that type is worked on where it lies;
//! any other is loaded and stored in blocks that stay in the L1 cache.

use std::marker::PhantomData;

use crate::float::Float;
use crate::isa::Tier;
use crate::storage::{self, Half, Rounding};

/// How numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    /// As they are computed in.
    Native,
    /// As `f32`, where `f64` is computed in.
    Single,
    /// In 16 bits.
    Half(Half),
    /// In 8 bits with a scale per block, of either sign.
    Signed,
    /// In 8 bits with a scale per block, as roots of squares.
    Squares,
}

/// An array of numbers that rules see as `T`.
#[derive(Debug)]
pub struct Cells<'a, T> {
    data: *mut u8,
    scales: *mut f32,
    len: usize,
    format: Format,
    rounding: Rounding,
    writable: bool,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for the borrows that it was made from, which can be sent and shared.
unsafe impl<T: Float> Send for Cells<'_, T> {}
// SAFETY: as above; who asks for elements has them alone.
unsafe impl<T: Float> Sync for Cells<'_, T> {}

impl<'a, T: Float> Cells<'a, T> {
    fn new<U>(data: &'a mut [U], format: Format, rounding: Rounding) -> Self {
        Self {
            data: data.as_mut_ptr().cast(),
            scales: std::ptr::null_mut(),
            len: data.len(),
            format,
            rounding,
            writable: true,
            memory: PhantomData,
        }
    }

    /// Numbers as they are computed in.
    pub fn native(data: &'a mut [T]) -> Self {
        Self::new(data, Format::Native, Rounding::Nearest)
    }

    /// Numbers as they are computed in, to be read alone.
    pub fn read(data: &'a [T]) -> Self {
        Self {
            data: data.as_ptr().cast_mut().cast(),
            scales: std::ptr::null_mut(),
            len: data.len(),
            format: Format::Native,
            rounding: Rounding::Nearest,
            writable: false,
            memory: PhantomData,
        }
    }

    /// Numbers in 16 bits, to be read alone.
    pub fn read_half(format: Half, data: &'a [u16]) -> Self {
        Self {
            data: data.as_ptr().cast_mut().cast(),
            scales: std::ptr::null_mut(),
            len: data.len(),
            format: Format::Half(format),
            rounding: Rounding::Nearest,
            writable: false,
            memory: PhantomData,
        }
    }

    /// Numbers as `f32`.
    pub fn single(data: &'a mut [f32]) -> Self {
        let native = size_of::<T>() == size_of::<f32>();
        let format = if native {
            Format::Native
        } else {
            Format::Single
        };
        Self::new(data, format, Rounding::Nearest)
    }

    /// Numbers in 16 bits.
    pub fn half(format: Half, data: &'a mut [u16], rounding: Rounding) -> Self {
        Self::new(data, Format::Half(format), rounding)
    }

    /// Numbers of either sign in 8 bits, with a scale for every [`storage::BLOCK`] of them.
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn signed(data: &'a mut [i8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        Self::new(data, Format::Signed, rounding).scaled(scales)
    }

    /// Numbers that are not negative, as roots in 8 bits with a scale for every [`storage::BLOCK`].
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn squares(data: &'a mut [u8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        Self::new(data, Format::Squares, rounding).scaled(scales)
    }

    fn scaled(self, scales: &'a mut [f32]) -> Self {
        let blocks = self.len.div_ceil(storage::BLOCK);
        assert_eq!(scales.len(), blocks, "one scale per block");
        Self {
            scales: scales.as_mut_ptr(),
            ..self
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether they can be worked on where they lie.
    pub(crate) fn is_native(&self) -> bool {
        self.format == Format::Native
    }

    /// Whether they may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where numbers that can be worked on lie.
    pub(crate) fn start(&self) -> *mut T {
        debug_assert!(self.is_native());
        self.data.cast()
    }

    /// Takes `next` in, which lies behind it.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.len += next.len;
    }

    /// Whether `next` lies right behind it, both where they can be worked on.
    pub(crate) fn meets(&self, next: &Self) -> bool {
        self.is_native()
            && next.is_native()
            && std::ptr::eq(self.start().wrapping_add(self.len), next.start())
    }

    /// The numbers of `from..to` where they lie, if they can be read there.
    ///
    /// # Safety
    /// `from <= to <= len`, and nobody writes any of them while the result lives.
    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> Option<&'a [T]> {
        debug_assert!(from <= to && to <= self.len);
        // SAFETY: inside the borrow; nobody writes by the caller's word.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts(self.start().add(from), to - from) })
    }

    /// The numbers of `from..to` where they lie, if they can be worked on there.
    ///
    /// # Safety
    /// `from <= to <= len`, they may be written, and nobody else has any of them while the result
    /// lives.
    pub(crate) unsafe fn slice_mut(&self, from: usize, to: usize) -> Option<&'a mut [T]> {
        debug_assert!(self.writable && from <= to && to <= self.len);
        // SAFETY: inside the borrow; the caller has them alone.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.start().add(from), to - from) })
    }

    /// The bytes and the scales of `out.len()` numbers from `from` on.
    ///
    /// # Safety
    /// As `slice_mut`, `U` is what the numbers are kept in, and `from` starts a block.
    #[expect(clippy::mut_from_ref)]
    unsafe fn kept<U>(&self, from: usize, len: usize) -> (&mut [U], &mut [f32]) {
        debug_assert!(from + len <= self.len);
        // SAFETY: inside the borrows; the caller has them alone.
        unsafe {
            let data = std::slice::from_raw_parts_mut(self.data.cast::<U>().add(from), len);
            if self.scales.is_null() {
                return (data, &mut []);
            }
            debug_assert!(from.is_multiple_of(storage::BLOCK));
            let start = self.scales.add(from / storage::BLOCK);
            let blocks = len.div_ceil(storage::BLOCK);
            (data, std::slice::from_raw_parts_mut(start, blocks))
        }
    }

    /// Reads the numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// They are inside, and nobody writes any of them meanwhile.
    pub(crate) unsafe fn load(&self, from: usize, out: &mut [T], tier: Tier) {
        let n = out.len();
        // SAFETY: the caller's word.
        unsafe {
            match self.format {
                Format::Native => out.copy_from_slice(self.kept::<T>(from, n).0),
                Format::Single => {
                    let (data, _) = self.kept::<f32>(from, n);
                    for i in 0..n {
                        out[i] = T::from_f64(f64::from(data[i]));
                    }
                }
                Format::Half(format) => {
                    storage::load_half(format, self.kept(from, n).0, out, tier);
                }
                Format::Signed => {
                    let (data, scales) = self.kept(from, n);
                    storage::load_signed(data, scales, out, tier);
                }
                Format::Squares => {
                    let (data, scales) = self.kept(from, n);
                    storage::load_squares(data, scales, out, tier);
                }
            }
        }
    }

    /// Writes numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// They are inside, they may be written, and nobody else has any of them meanwhile.
    pub(crate) unsafe fn store(&self, from: usize, new: &[T], tier: Tier) {
        debug_assert!(self.writable);
        let n = new.len();
        let rounding = self.rounding.skip(from);
        // SAFETY: the caller's word.
        unsafe {
            match self.format {
                Format::Native => self.kept(from, n).0.copy_from_slice(new),
                Format::Single => {
                    let (data, _) = self.kept::<f32>(from, n);
                    for i in 0..n {
                        data[i] = new[i].to_f64() as f32;
                    }
                }
                Format::Half(format) => {
                    storage::store_half(format, new, self.kept(from, n).0, rounding, tier);
                }
                Format::Signed => {
                    let (data, scales) = self.kept(from, n);
                    storage::store_signed(new, data, scales, rounding, tier);
                }
                Format::Squares => {
                    let (data, scales) = self.kept(from, n);
                    storage::store_squares(new, data, scales, rounding, tier);
                }
            }
        }
    }

    /// Sets the numbers of `from..to` to 0.
    ///
    /// # Safety
    /// As `store`.
    pub(crate) unsafe fn clear(&self, from: usize, to: usize) {
        debug_assert!(self.writable);
        // SAFETY: the caller's word. All bits 0 is 0 in every format.
        unsafe {
            match self.format {
                Format::Native => self.kept::<T>(from, to - from).0.fill(T::ZERO),
                Format::Single => self.kept::<f32>(from, to - from).0.fill(0.0),
                Format::Half(_) => self.kept::<u16>(from, to - from).0.fill(0),
                Format::Signed | Format::Squares => {
                    let (data, scales) = self.kept::<u8>(from, to - from);
                    data.fill(0);
                    scales.fill(0.0);
                }
            }
        }
    }
}
