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
    /// As `f32`, where `f64` is computed in.
    Single,
    /// In 16 bits.
    Half(Half),
    /// In 8 bits with a scale per block, of either sign.
    Signed,
    /// In 8 bits with a scale per block, as roots of squares.
    Squares,
}

/// How numbers that rules do not see as they are kept are kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    format: Format,
    scales: *mut f32,
    rounding: Rounding,
}

/// An array of numbers that rules see as `T`.
///
/// A step makes some for every parameter, so what most of them do not need is in a box.
#[derive(Debug)]
pub struct Cells<'a, T> {
    data: *mut u8,
    len: usize,
    kept: Option<Box<Kept>>,
    writable: bool,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for the borrows that it was made from, which can be sent and shared.
unsafe impl<T: Float> Send for Cells<'_, T> {}
// SAFETY: as above; who asks for elements has them alone.
unsafe impl<T: Float> Sync for Cells<'_, T> {}

impl<T> Default for Cells<'_, T> {
    /// No numbers.
    fn default() -> Self {
        Self {
            data: std::ptr::null_mut(),
            len: 0,
            kept: None,
            writable: true,
            memory: PhantomData,
        }
    }
}

impl<'a, T: Float> Cells<'a, T> {
    fn new<U>(data: *const [U], writable: bool) -> Self {
        Self {
            data: data.cast_mut().cast(),
            len: data.len(),
            kept: None,
            writable,
            memory: PhantomData,
        }
    }

    fn kept_as(self, format: Format, scales: &'a mut [f32], rounding: Rounding) -> Self {
        let kept = Kept {
            format,
            scales: scales.as_mut_ptr(),
            rounding,
        };
        Self {
            kept: Some(Box::new(kept)),
            ..self
        }
    }

    /// Numbers as they are computed in.
    pub fn native(data: &'a mut [T]) -> Self {
        Self::new(data, true)
    }

    /// Numbers as they are computed in, to be read alone.
    pub fn read(data: &'a [T]) -> Self {
        Self::new(data, false)
    }

    /// Numbers in 16 bits, to be read alone.
    pub fn read_half(format: Half, data: &'a [u16]) -> Self {
        Self::new(data, false).kept_as(Format::Half(format), &mut [], Rounding::Nearest)
    }

    /// Numbers as `f32`.
    pub fn single(data: &'a mut [f32]) -> Self {
        let cells = Self::new(data, true);
        if size_of::<T>() == size_of::<f32>() {
            cells
        } else {
            cells.kept_as(Format::Single, &mut [], Rounding::Nearest)
        }
    }

    /// Numbers in 16 bits.
    pub fn half(format: Half, data: &'a mut [u16], rounding: Rounding) -> Self {
        Self::new(data, true).kept_as(Format::Half(format), &mut [], rounding)
    }

    /// Numbers of either sign in 8 bits, with a scale for every [`storage::BLOCK`] of them.
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn signed(data: &'a mut [i8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        assert_eq!(
            scales.len(),
            data.len().div_ceil(storage::BLOCK),
            "one per block"
        );
        Self::new(data, true).kept_as(Format::Signed, scales, rounding)
    }

    /// Numbers that are not negative, as roots in 8 bits with a scale for every [`storage::BLOCK`].
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn squares(data: &'a mut [u8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        assert_eq!(
            scales.len(),
            data.len().div_ceil(storage::BLOCK),
            "one per block"
        );
        Self::new(data, true).kept_as(Format::Squares, scales, rounding)
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
        self.kept.is_none()
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

    /// `len` numbers from `from` on as they are kept.
    ///
    /// # Safety
    /// As `slice_mut`, and `U` is what the numbers are kept in.
    #[expect(clippy::mut_from_ref)]
    unsafe fn bytes<U>(&self, from: usize, len: usize) -> &mut [U] {
        debug_assert!(from + len <= self.len);
        // SAFETY: inside the borrow; the caller has them alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast::<U>().add(from), len) }
    }

    /// Reads the numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// They are inside, and nobody writes any of them meanwhile.
    pub(crate) unsafe fn load(&self, from: usize, out: &mut [T], tier: Tier) {
        let n = out.len();
        // SAFETY: the caller's word.
        unsafe {
            let Some(kept) = &self.kept else {
                return out.copy_from_slice(self.bytes(from, n));
            };
            match kept.format {
                Format::Single => {
                    let data = self.bytes::<f32>(from, n);
                    for i in 0..n {
                        out[i] = T::from_f32(data[i]);
                    }
                }
                Format::Half(format) => {
                    storage::load_half(format, self.bytes(from, n), out, tier);
                }
                Format::Signed => {
                    storage::load_signed(self.bytes(from, n), kept.scales(from, n), out, tier);
                }
                Format::Squares => {
                    storage::load_squares(self.bytes(from, n), kept.scales(from, n), out, tier);
                }
            }
        }
    }

    /// The numbers from `from` on, which starts a block, of the length of `stage`: where they lie,
    /// or loaded there.
    ///
    /// # Safety
    /// As `load`.
    pub(crate) unsafe fn read_into<'s>(
        &self,
        from: usize,
        stage: &'s mut [T],
        tier: Tier,
    ) -> &'s [T]
    where
        'a: 's,
    {
        // SAFETY: the caller's word.
        unsafe {
            if let Some(lies) = self.slice(from, from + stage.len()) {
                return lies;
            }
            self.load(from, stage, tier);
        }
        stage
    }

    /// Writes numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// They are inside, they may be written, and nobody else has any of them meanwhile.
    pub(crate) unsafe fn store(&self, from: usize, new: &[T], tier: Tier) {
        debug_assert!(self.writable);
        let n = new.len();
        // SAFETY: the caller's word.
        unsafe {
            let Some(kept) = &self.kept else {
                return self.bytes(from, n).copy_from_slice(new);
            };
            let rounding = kept.rounding.skip(from);
            match kept.format {
                Format::Single => {
                    let data = self.bytes::<f32>(from, n);
                    for i in 0..n {
                        data[i] = new[i].to_f64() as f32;
                    }
                }
                Format::Half(format) => {
                    storage::store_half(format, new, self.bytes(from, n), rounding, tier);
                }
                Format::Signed => {
                    let scales = kept.scales(from, n);
                    storage::store_signed(new, self.bytes(from, n), scales, rounding, tier);
                }
                Format::Squares => {
                    let scales = kept.scales(from, n);
                    storage::store_squares(new, self.bytes(from, n), scales, rounding, tier);
                }
            }
        }
    }

    /// Sets the numbers of `from..to` to 0, where `from` starts a block.
    ///
    /// # Safety
    /// As `store`.
    pub(crate) unsafe fn clear(&self, from: usize, to: usize) {
        debug_assert!(self.writable);
        let n = to - from;
        // SAFETY: the caller's word. All bits 0 is 0 in every format.
        unsafe {
            match self.kept.as_deref().map(|kept| (kept, kept.format)) {
                None => self.bytes(from, n).fill(T::ZERO),
                Some((_, Format::Single)) => self.bytes(from, n).fill(0.0_f32),
                Some((_, Format::Half(_))) => self.bytes(from, n).fill(0_u16),
                Some((kept, Format::Signed | Format::Squares)) => {
                    self.bytes(from, n).fill(0_u8);
                    kept.scales(from, n).fill(0.0);
                }
            }
        }
    }
}

impl Kept {
    /// The scales of `len` numbers from `from` on.
    ///
    /// # Safety
    /// They are inside, and nobody else has any of them.
    #[expect(clippy::mut_from_ref)]
    unsafe fn scales(&self, from: usize, len: usize) -> &mut [f32] {
        debug_assert!(from.is_multiple_of(storage::BLOCK));
        let blocks = len.div_ceil(storage::BLOCK);
        // SAFETY: the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.scales.add(from / storage::BLOCK), blocks) }
    }
}
