//! One array of a parameter, however its numbers are kept.
//!
//! Rules compute in `f32` or `f64`. An array that is kept in that type is worked on where it lies;
//! any other is loaded and stored in blocks that stay in the L1 cache.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::exec::isa::Tier;
use crate::numeric::float::Float;
use crate::storage::{self, Half, Rounding};

/// How numbers that rules do not see as they are kept are kept.
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

/// What only numbers need that rules do not see as they are kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    format: Format,
    /// One per started block in the formats of 8 bits.
    scales: NonNull<f32>,
    rounding: Rounding,
}

/// Where an array lies, and how its numbers are kept: what [`StorageView::from_raw`] is made from.
#[derive(Clone, Copy, Debug)]
pub enum Raw<T> {
    /// Numbers as they are computed in.
    Native(*mut [T]),
    /// Numbers as `f32`.
    Single(*mut [f32]),
    /// Numbers in 16 bits.
    Half(Half, *mut [u16]),
    /// Numbers of either sign in 8 bits, and a scale for every [`storage::BLOCK`] of them.
    Signed(*mut [i8], *mut [f32]),
    /// Numbers that are not negative, as roots in 8 bits, and their scales as for `Signed`.
    Squares(*mut [u8], *mut [f32]),
}

/// An array of numbers that rules see as `T`.
///
/// It holds the address of the array and no reference to it: references are made of what one thread
/// reads or writes at a time, and no longer. A step makes some for every parameter, so what most of
/// them do not need is in a box.
#[derive(Debug)]
pub struct StorageView<'a, T> {
    data: NonNull<u8>,
    len: usize,
    kept: Option<Box<Kept>>,
    writable: bool,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a borrow of the array (shared where it is only read), and borrows of numbers
// can be sent. The scales are part of the array.
unsafe impl<T: Float> Send for StorageView<'_, T> {}
// SAFETY: through a shared `StorageView` elements are only had by the unsafe functions below, each of which
// asks that nobody else has those elements, or that nobody writes them where it only reads.
unsafe impl<T: Float> Sync for StorageView<'_, T> {}

/// The start of an array, which is any aligned address where there are no elements.
///
/// # Panics
/// There are elements at a null pointer.
fn start<U>(data: *mut [U]) -> NonNull<U> {
    if data.len() == 0 {
        return NonNull::dangling();
    }
    let start = NonNull::new(data.cast::<U>()).expect("an array of some length lies somewhere");
    debug_assert!(start.is_aligned(), "an array is aligned to its elements");
    start
}

/// The start of the scales of an array of `len` numbers.
///
/// # Panics
/// There is not one per block.
fn scales(scales: *mut [f32], len: usize) -> NonNull<f32> {
    assert_eq!(
        scales.len(),
        len.div_ceil(storage::BLOCK),
        "one scale per block"
    );
    start(scales)
}

impl<'a, T: Float> StorageView<'a, T> {
    fn new(raw: Raw<T>, rounding: Rounding, writable: bool) -> Self {
        let (data, len, kept) = match raw {
            Raw::Native(data) => (start(data).cast(), data.len(), None),
            Raw::Single(data) => {
                let computed_in = size_of::<T>() == size_of::<f32>();
                let kept = (!computed_in).then_some((Format::Single, NonNull::dangling()));
                (start(data).cast(), data.len(), kept)
            }
            Raw::Half(half, data) => {
                let kept = (Format::Half(half), NonNull::dangling());
                (start(data).cast(), data.len(), Some(kept))
            }
            Raw::Signed(data, each) => {
                let kept = (Format::Signed, scales(each, data.len()));
                (start(data).cast(), data.len(), Some(kept))
            }
            Raw::Squares(data, each) => {
                let kept = (Format::Squares, scales(each, data.len()));
                (start(data).cast(), data.len(), Some(kept))
            }
        };
        Self {
            data,
            len,
            kept: kept.map(|(format, scales)| {
                Box::new(Kept {
                    format,
                    scales,
                    rounding,
                })
            }),
            writable,
            memory: PhantomData,
        }
    }

    /// An array that may be written, from where it lies. An array of no length may lie anywhere.
    ///
    /// # Safety
    /// For `'a` the array, with its scales where it has some, is alive, aligned and initialized, the
    /// pointers may read and write all of it, and nobody else reads or writes it but through the
    /// result.
    ///
    /// Where [`Segment::follows`](crate::sweep::segment::Segment::follows) is to join neighbours, the
    /// pointers must come from their allocation itself and not from a slice of it: a pointer from a
    /// slice may not leave that.
    ///
    /// # Panics
    /// A pointer is null though its array has a length, or there is not one scale per block.
    pub unsafe fn from_raw(raw: Raw<T>, rounding: Rounding) -> Self {
        Self::new(raw, rounding, true)
    }

    /// An array to be read alone, from where it lies. Nothing is written through the pointers, so
    /// they may come from a `*const`.
    ///
    /// # Safety
    /// As for [`StorageView::from_raw`], but the pointers need only read, and others may read the array
    /// too: nobody writes it for `'a`.
    ///
    /// # Panics
    /// As [`StorageView::from_raw`].
    pub unsafe fn read_from_raw(raw: Raw<T>) -> Self {
        Self::new(raw, Rounding::Nearest, false)
    }

    /// Numbers as they are computed in.
    pub fn native(data: &'a mut [T]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(Raw::Native(data), Rounding::Nearest) }
    }

    /// Numbers as they are computed in, to be read alone.
    pub fn read(data: &'a [T]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, so nobody writes it.
        unsafe { Self::read_from_raw(Raw::Native(ptr::from_ref(data).cast_mut())) }
    }

    /// Numbers in 16 bits, to be read alone.
    pub fn read_half(format: Half, data: &'a [u16]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, so nobody writes it.
        unsafe { Self::read_from_raw(Raw::Half(format, ptr::from_ref(data).cast_mut())) }
    }

    /// Numbers as `f32`.
    pub fn single(data: &'a mut [f32]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(Raw::Single(data), Rounding::Nearest) }
    }

    /// Numbers in 16 bits.
    pub fn half(format: Half, data: &'a mut [u16], rounding: Rounding) -> Self {
        // SAFETY: the slice is borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(Raw::Half(format, data), rounding) }
    }

    /// Numbers of either sign in 8 bits, with a scale for every [`storage::BLOCK`] of them.
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn signed(data: &'a mut [i8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        // SAFETY: both slices are borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(Raw::Signed(data, scales), rounding) }
    }

    /// Numbers that are not negative, as roots in 8 bits with a scale for every [`storage::BLOCK`].
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn squares(data: &'a mut [u8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        // SAFETY: both slices are borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(Raw::Squares(data, scales), rounding) }
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
    fn start(&self) -> *mut T {
        debug_assert!(self.is_native());
        self.data.as_ptr().cast()
    }

    /// Takes `next` in, which lies behind it.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.len += next.len;
    }

    /// Whether `next` lies right behind it, both where they can be worked on.
    pub(crate) fn meets(&self, next: &Self) -> bool {
        self.is_native()
            && next.is_native()
            && ptr::eq(self.start().wrapping_add(self.len), next.start())
    }

    /// The numbers of `from..to` where they lie, if they can be read there.
    ///
    /// # Safety
    /// `from <= to <= len`, and nobody writes any of them while the result lives.
    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> Option<&'a [T]> {
        debug_assert!(from <= to && to <= self.len);
        // SAFETY: kept as `T`; by this function's contract inside, and written by nobody.
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
        // SAFETY: kept as `T`; by this function's contract inside, writable, and had by nobody else.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.start().add(from), to - from) })
    }

    /// `len` numbers from `from` on as they are kept, to be read.
    ///
    /// # Safety
    /// `U` is what the numbers are kept in, `from + len` is at most the length, and nobody writes any
    /// of them while the result lives.
    unsafe fn codes<U>(&self, from: usize, len: usize) -> &[U] {
        debug_assert!(from + len <= self.len);
        // SAFETY: by this function's contract kept as `U`, inside, and written by nobody.
        unsafe { std::slice::from_raw_parts(self.data.cast::<U>().as_ptr().add(from), len) }
    }

    /// `len` numbers from `from` on as they are kept, to be written.
    ///
    /// # Safety
    /// `U` is what the numbers are kept in, `from + len` is at most the length, they may be written,
    /// and nobody else has any of them while the result lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "elements are asked for one thread at a time"
    )]
    unsafe fn codes_mut<U>(&self, from: usize, len: usize) -> &mut [U] {
        debug_assert!(self.writable && from + len <= self.len);
        // SAFETY: by this function's contract kept as `U`, inside, writable, and had by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast::<U>().as_ptr().add(from), len) }
    }

    /// Reads the numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// `from + out.len()` is at most the length, and nobody writes any of them meanwhile.
    pub(crate) unsafe fn load(&self, from: usize, out: &mut [T], tier: Tier) {
        let n = out.len();
        // SAFETY: each format is read as what it is kept in; that the numbers are inside and nobody
        // writes them is this function's contract.
        unsafe {
            let Some(kept) = &self.kept else {
                return out.copy_from_slice(self.codes(from, n));
            };
            match kept.format {
                Format::Single => {
                    let data = self.codes::<f32>(from, n);
                    for i in 0..n {
                        out[i] = T::from_f32(data[i]);
                    }
                }
                Format::Half(format) => {
                    storage::load_half(format, self.codes(from, n), out, tier);
                }
                Format::Signed => {
                    storage::load_signed(self.codes(from, n), kept.scales(from, n), out, tier);
                }
                Format::Squares => {
                    storage::load_squares(self.codes(from, n), kept.scales(from, n), out, tier);
                }
            }
        }
    }

    /// The numbers from `from` on, which starts a block, of the length of `tile`: where they lie,
    /// or loaded there.
    ///
    /// # Safety
    /// `from + tile.len()` is at most the length, and nobody writes any of them while the result
    /// lives.
    pub(crate) unsafe fn read_into<'s>(&self, from: usize, tile: &'s mut [T], tier: Tier) -> &'s [T]
    where
        'a: 's,
    {
        // SAFETY: that the numbers are inside and nobody writes them is this function's contract.
        unsafe {
            if let Some(lies) = self.slice(from, from + tile.len()) {
                return lies;
            }
            self.load(from, tile, tier);
        }
        tile
    }

    /// Writes numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// `from + new.len()` is at most the length, they may be written, and nobody else has any of
    /// them meanwhile.
    pub(crate) unsafe fn store(&self, from: usize, new: &[T], tier: Tier) {
        let n = new.len();
        // SAFETY: each format is written as what it is kept in; that the numbers are inside, may be
        // written and nobody else has them is this function's contract. Whole blocks are: their
        // scales are nobody else's either.
        unsafe {
            let Some(kept) = &self.kept else {
                return self.codes_mut(from, n).copy_from_slice(new);
            };
            let rounding = kept.rounding.skip(from);
            match kept.format {
                Format::Single => {
                    let data = self.codes_mut::<f32>(from, n);
                    for i in 0..n {
                        data[i] = new[i].to_f64() as f32;
                    }
                }
                Format::Half(format) => {
                    storage::store_half(format, new, self.codes_mut(from, n), rounding, tier);
                }
                Format::Signed => {
                    let scales = kept.scales_mut(from, n);
                    storage::store_signed(new, self.codes_mut(from, n), scales, rounding, tier);
                }
                Format::Squares => {
                    let scales = kept.scales_mut(from, n);
                    storage::store_squares(new, self.codes_mut(from, n), scales, rounding, tier);
                }
            }
        }
    }

    /// Sets the numbers of `from..to` to 0, where `from` starts a block.
    ///
    /// # Safety
    /// `from <= to <= len`, they may be written, and nobody else has any of them meanwhile.
    pub(crate) unsafe fn clear(&self, from: usize, to: usize) {
        let n = to - from;
        // SAFETY: each format is written as what it is kept in, and all bits 0 is 0 in every one;
        // that the numbers are inside, may be written and nobody else has them is this function's
        // contract.
        unsafe {
            match self.kept.as_deref().map(|kept| (kept, kept.format)) {
                None => self.codes_mut(from, n).fill(T::ZERO),
                Some((_, Format::Single)) => self.codes_mut(from, n).fill(0.0_f32),
                Some((_, Format::Half(_))) => self.codes_mut(from, n).fill(0_u16),
                Some((kept, Format::Signed | Format::Squares)) => {
                    self.codes_mut(from, n).fill(0_u8);
                    kept.scales_mut(from, n).fill(0.0);
                }
            }
        }
    }
}

impl Kept {
    /// The scales of `len` numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// The numbers are in 8 bits, `from + len` is at most their length, and nobody writes them while
    /// the result lives.
    unsafe fn scales(&self, from: usize, len: usize) -> &[f32] {
        debug_assert!(from.is_multiple_of(storage::BLOCK));
        let blocks = len.div_ceil(storage::BLOCK);
        // SAFETY: there is a scale for each started block, and by this function's contract these
        // blocks are inside and nobody writes them.
        unsafe {
            let first = self.scales.as_ptr().add(from / storage::BLOCK);
            std::slice::from_raw_parts(first, blocks)
        }
    }

    /// The same, to be written.
    ///
    /// # Safety
    /// The numbers are in 8 bits, `from + len` is at most their length, they may be written, and
    /// nobody else has them while the result lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "elements are asked for one thread at a time"
    )]
    unsafe fn scales_mut(&self, from: usize, len: usize) -> &mut [f32] {
        debug_assert!(from.is_multiple_of(storage::BLOCK));
        let blocks = len.div_ceil(storage::BLOCK);
        // SAFETY: there is a scale for each started block, and by this function's contract these
        // blocks are inside, writable, and had by nobody else.
        unsafe {
            let first = self.scales.as_ptr().add(from / storage::BLOCK);
            std::slice::from_raw_parts_mut(first, blocks)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that all formats keep exactly.
    fn exact<T: Float>(n: usize) -> Vec<T> {
        (0..n).map(|i| T::from_f64([0.0, 1.0][i % 2])).collect()
    }

    fn every_number_is_kept<T: Float>(view: &StorageView<'_, T>) {
        let n = view.len();
        let (new, mut got) = (exact::<T>(n), vec![T::ONE; n]);
        // SAFETY: inside, writable by its type, and nobody else has the view.
        unsafe {
            view.store(0, &new, Tier::Baseline);
            view.load(0, &mut got, Tier::Baseline);
            assert_eq!(got, new);
            let from = n / storage::BLOCK * storage::BLOCK;
            view.clear(from, n);
            view.load(0, &mut got, Tier::Baseline);
            assert_eq!(got[..from], new[..from]);
        }
        assert!(
            got[n / storage::BLOCK * storage::BLOCK..]
                .iter()
                .all(|&x| x == T::ZERO)
        );
    }

    #[test]
    fn every_format_keeps_what_it_is_given() {
        let nearest = Rounding::Nearest;
        for n in [0_usize, 1, 300, 512] {
            let blocks = n.div_ceil(storage::BLOCK);
            every_number_is_kept(&StorageView::native(&mut vec![0.5_f32; n]));
            every_number_is_kept(&StorageView::<f64>::single(&mut vec![0.5_f32; n]));
            every_number_is_kept(&StorageView::<f32>::single(&mut vec![0.5_f32; n]));
            for half in [Half::F16, Half::Bf16] {
                every_number_is_kept(&StorageView::<f32>::half(half, &mut vec![7; n], nearest));
            }
            let mut scales = vec![0.5; blocks];
            let (mut signed, mut squares) = (vec![7; n], vec![7; n]);
            every_number_is_kept(&StorageView::<f32>::signed(
                &mut signed,
                &mut scales,
                nearest,
            ));
            every_number_is_kept(&StorageView::<f64>::squares(
                &mut squares,
                &mut scales,
                nearest,
            ));
        }
    }

    #[test]
    fn what_is_only_read_is_never_borrowed_as_written() {
        static SINGLE: [f32; 3] = [1.0, 2.0, 3.0];
        static HALF: [u16; 3] = [0x3F80, 0x4000, 0x4040];
        let read = [
            StorageView::read(&SINGLE),
            StorageView::read_half(Half::Bf16, &HALF),
        ];
        // Others read it all the while.
        let (single, half) = (&SINGLE[1], &HALF[1]);
        for view in &read {
            assert!(!view.is_writable());
            let mut got = [0.0; 3];
            // SAFETY: inside, and nobody writes a static.
            unsafe { view.load(0, &mut got, Tier::Baseline) };
            assert_eq!(got, SINGLE);
        }
        assert_eq!((*single, *half), (2.0, 0x4000));
    }

    #[test]
    fn nothing_may_lie_nowhere() {
        let null = ptr::slice_from_raw_parts_mut(ptr::null_mut::<f64>(), 0);
        // SAFETY: there are no elements.
        let view = unsafe { StorageView::from_raw(Raw::Native(null), Rounding::Nearest) };
        assert!(view.is_empty());
        // SAFETY: there are no elements.
        assert_eq!(unsafe { view.slice_mut(0, 0) }, Some(&mut [][..]));
    }

    #[test]
    #[should_panic(expected = "an array of some length lies somewhere")]
    fn something_does_not_lie_nowhere() {
        let null = ptr::slice_from_raw_parts_mut(ptr::null_mut::<f64>(), 1);
        // SAFETY: refused before it is used.
        let _ = unsafe { StorageView::from_raw(Raw::Native(null), Rounding::Nearest) };
    }

    #[test]
    #[should_panic(expected = "one scale per block")]
    fn a_scale_too_few_is_refused() {
        let _ = StorageView::<f32>::signed(&mut [0; 257], &mut [0.0], Rounding::Nearest);
    }
}
