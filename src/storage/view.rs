//! One array, however it is stored.
//!
//! Kernels compute in `f32` or `f64`. An array that is stored in that type is computed on in place;
//! any other is loaded and stored in tiles that stay in the L1 cache.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::exec::isa::Tier;
use crate::numeric::float::Float;
use crate::storage::{self, Encoding, Half, Rounding};

/// What only an array needs whose encoding is not the one that is computed in.
#[derive(Clone, Copy, Debug)]
struct Encoded {
    encoding: Encoding,
    /// As many as the encoding has for the array.
    scales: NonNull<f32>,
    rounding: Rounding,
}

/// An array in memory: what [`StorageView::from_raw`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct Raw {
    encoding: Encoding,
    data: *mut u8,
    len: usize,
    scales: *mut [f32],
}

impl Raw {
    /// `len` elements at `data`, without scales.
    pub fn new(encoding: Encoding, data: *mut u8, len: usize) -> Self {
        Self {
            encoding,
            data,
            len,
            scales: ptr::slice_from_raw_parts_mut(ptr::null_mut(), 0),
        }
    }

    /// It with the scales of its blocks.
    #[must_use]
    pub fn with_scales(self, scales: *mut [f32]) -> Self {
        Self { scales, ..self }
    }

    fn native<T: Float>(data: *mut [T]) -> Self {
        let encoding = if Encoding::F32.is_native::<T>() {
            Encoding::F32
        } else {
            Encoding::F64
        };
        Self::new(encoding, data.cast(), data.len())
    }
}

/// An array of numbers that kernels see as `T`.
///
/// It holds the address of the array and no reference to it: references are made of what one thread
/// reads or writes at a time, and no longer. A step makes some for every parameter, so what most of
/// them do not need is in a box.
#[derive(Debug)]
pub struct StorageView<'a, T> {
    data: NonNull<u8>,
    len: usize,
    encoded: Option<Box<Encoded>>,
    writable: bool,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a borrow of the array (shared where it is only read), and borrows of numbers
// can be sent. The scales are part of the array.
unsafe impl<T: Float> Send for StorageView<'_, T> {}
// SAFETY: through a shared `StorageView` elements are only had by the unsafe functions below, each of which
// asks that nobody else has those elements, or that nobody writes them where it only reads.
unsafe impl<T: Float> Sync for StorageView<'_, T> {}

/// The start of `len` elements, which is any aligned address where there are none.
///
/// # Panics
/// There are elements at a null pointer.
fn start<U>(data: *mut U, len: usize) -> NonNull<U> {
    if len == 0 {
        return NonNull::dangling();
    }
    NonNull::new(data).expect("an array with elements has an address")
}

/// A borrowed array of elements of the type that this encoding has.
fn raw<U>(encoding: Encoding, data: *mut [U]) -> Raw {
    debug_assert_eq!(size_of::<U>(), encoding.width());
    Raw::new(encoding, data.cast(), data.len())
}

impl<'a, T: Float> StorageView<'a, T> {
    fn new(raw: Raw, rounding: Rounding, writable: bool) -> Self {
        let Raw {
            encoding,
            data,
            len,
            scales,
        } = raw;
        let count = encoding.scales(len);
        assert_eq!(scales.len(), count, "one scale per block");
        // Dangling pointers are aligned to the elements of any encoding.
        let data = start(data.cast::<u64>(), len).cast::<u8>();
        debug_assert!(data.addr().get().is_multiple_of(encoding.width()));
        let encoded = (!encoding.is_native::<T>()).then(|| {
            Box::new(Encoded {
                encoding,
                scales: start(scales.cast::<f32>(), count),
                rounding,
            })
        });
        Self {
            data,
            len,
            encoded,
            writable,
            memory: PhantomData,
        }
    }

    /// An array that may be written, from its address, which may be any where there are no elements.
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
    pub unsafe fn from_raw(raw: Raw, rounding: Rounding) -> Self {
        Self::new(raw, rounding, true)
    }

    /// An array to be read only, from its address. Nothing is written through the pointers, so they
    /// may come from a `*const`.
    ///
    /// # Safety
    /// As for [`StorageView::from_raw`], but the pointers need only read, and others may read the array
    /// too: nobody writes it for `'a`.
    ///
    /// # Panics
    /// As [`StorageView::from_raw`].
    pub unsafe fn read_from_raw(raw: Raw) -> Self {
        Self::new(raw, Rounding::Nearest, false)
    }

    /// Numbers as they are computed in.
    pub fn native(data: &'a mut [T]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(Raw::native(data), Rounding::Nearest) }
    }

    /// Numbers as they are computed in, to be read alone.
    pub fn read(data: &'a [T]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, so nobody writes it.
        unsafe { Self::read_from_raw(Raw::native(ptr::from_ref(data).cast_mut())) }
    }

    /// Numbers in 16 bits, to be read alone.
    pub fn read_half(format: Half, data: &'a [u16]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, so nobody writes it.
        unsafe { Self::read_from_raw(raw(Encoding::Half(format), ptr::from_ref(data).cast_mut())) }
    }

    /// Numbers as `f32`.
    pub fn single(data: &'a mut [f32]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(raw(Encoding::F32, data), Rounding::Nearest) }
    }

    /// Numbers in 16 bits.
    pub fn half(format: Half, data: &'a mut [u16], rounding: Rounding) -> Self {
        // SAFETY: the slice is borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(raw(Encoding::Half(format), data), rounding) }
    }

    /// Numbers of either sign in 8 bits, with a scale for every [`storage::BLOCK`] of them.
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn signed(data: &'a mut [i8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        // SAFETY: both slices are borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(raw(Encoding::Signed, data).with_scales(scales), rounding) }
    }

    /// Numbers that are not negative, as roots in 8 bits with a scale for every [`storage::BLOCK`].
    ///
    /// # Panics
    /// There are more or fewer scales.
    pub fn squares(data: &'a mut [u8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        // SAFETY: both slices are borrowed for `'a`, by nobody else.
        unsafe { Self::from_raw(raw(Encoding::Squares, data).with_scales(scales), rounding) }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether they are stored as they are computed in.
    pub(crate) fn is_native(&self) -> bool {
        self.encoded.is_none()
    }

    /// Whether they may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The address of numbers that are stored as they are computed in.
    fn start(&self) -> *mut T {
        debug_assert!(self.is_native());
        self.data.as_ptr().cast()
    }

    /// Takes `next` in, which starts where this one ends.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.len += next.len;
    }

    /// Whether `next` starts where this one ends, and both are stored as they are computed in.
    pub(crate) fn meets(&self, next: &Self) -> bool {
        self.is_native()
            && next.is_native()
            && ptr::eq(self.start().wrapping_add(self.len), next.start())
    }

    /// The numbers of `from..to` in place, if they are stored as they are computed in.
    ///
    /// # Safety
    /// `from <= to <= len`, and nobody writes any of them while the result lives.
    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> Option<&'a [T]> {
        debug_assert!(from <= to && to <= self.len);
        // SAFETY: stored as `T`; by this function's contract inside, and written by nobody.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts(self.start().add(from), to - from) })
    }

    /// The numbers of `from..to` in place and to be written, if they are stored as they are computed
    /// in.
    ///
    /// # Safety
    /// `from <= to <= len`, they may be written, and nobody else has any of them while the result
    /// lives.
    pub(crate) unsafe fn slice_mut(&self, from: usize, to: usize) -> Option<&'a mut [T]> {
        debug_assert!(self.writable && from <= to && to <= self.len);
        // SAFETY: stored as `T`; by this function's contract inside, writable, and had by nobody else.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.start().add(from), to - from) })
    }

    /// Where the stored element `from` is.
    ///
    /// # Safety
    /// `from <= len`.
    unsafe fn at(&self, from: usize) -> *mut u8 {
        let width = match &self.encoded {
            None => size_of::<T>(),
            Some(encoded) => encoded.encoding.width(),
        };
        // SAFETY: the array has `len` elements of this width, and `from` is at most that many.
        unsafe { self.data.as_ptr().add(from * width) }
    }

    /// Reads the numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// `from + out.len()` is at most the length, and nobody writes any of them meanwhile.
    pub(crate) unsafe fn load(&self, from: usize, out: &mut [T], tier: Tier) {
        let n = out.len();
        debug_assert!(from + n <= self.len);
        // SAFETY: elements of this encoding, aligned; that they are inside and nobody writes them is
        // this function's contract, and blocks that nobody writes have scales that nobody writes.
        unsafe {
            match &self.encoded {
                None => out.copy_from_slice(std::slice::from_raw_parts(self.start().add(from), n)),
                Some(encoded) => {
                    let (data, scales) = (self.at(from), encoded.scales(from, n));
                    encoded.encoding.load(data, scales, out, tier);
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
            if let Some(own) = self.slice(from, from + tile.len()) {
                return own;
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
        debug_assert!(self.writable && from + n <= self.len);
        // SAFETY: elements of this encoding, aligned; that they are inside, may be written and nobody
        // else has them is this function's contract. Whole blocks are: their scales are nobody
        // else's either.
        unsafe {
            match &self.encoded {
                None => {
                    std::slice::from_raw_parts_mut(self.start().add(from), n).copy_from_slice(new)
                }
                Some(encoded) => {
                    let (data, scales) = (self.at(from), encoded.scales_mut(from, n));
                    let rounding = encoded.rounding.skip(from);
                    encoded.encoding.store(new, data, scales, rounding, tier);
                }
            }
        }
    }

    /// Sets the numbers of `from..to` to 0, where `from` starts a block.
    ///
    /// # Safety
    /// `from <= to <= len`, they may be written, and nobody else has any of them meanwhile.
    pub(crate) unsafe fn clear(&self, from: usize, to: usize) {
        debug_assert!(self.writable && from <= to && to <= self.len);
        // SAFETY: elements whose bits may all be 0 in every encoding; that they are inside, may be
        // written and nobody else has them is this function's contract.
        unsafe {
            let (first, end) = (self.at(from), self.at(to));
            first.write_bytes(0, end.offset_from_unsigned(first));
            if let Some(encoded) = &self.encoded {
                encoded.scales_mut(from, to - from).fill(0.0);
            }
        }
    }
}

impl Encoded {
    /// The scales of `len` numbers from `from` on, which starts a block.
    ///
    /// # Safety
    /// `from + len` is at most the length of the array, and nobody writes these numbers while the
    /// result lives.
    unsafe fn scales(&self, from: usize, len: usize) -> &[f32] {
        let blocks = self.encoding.scales(len);
        if blocks == 0 {
            return &[];
        }
        debug_assert!(from.is_multiple_of(storage::BLOCK));
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
    /// `from + len` is at most the length of the array, these numbers may be written, and nobody else
    /// has them while the result lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "elements are asked for one thread at a time"
    )]
    unsafe fn scales_mut(&self, from: usize, len: usize) -> &mut [f32] {
        let blocks = self.encoding.scales(len);
        if blocks == 0 {
            return &mut [];
        }
        debug_assert!(from.is_multiple_of(storage::BLOCK));
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

    /// Numbers that all encodings represent exactly.
    fn exact<T: Float>(n: usize) -> Vec<T> {
        (0..n).map(|i| T::from_f64([0.0, 1.0][i % 2])).collect()
    }

    fn every_number_is_stored<T: Float>(view: &StorageView<'_, T>) {
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
    fn every_encoding_stores_what_it_is_given() {
        let nearest = Rounding::Nearest;
        for n in [0_usize, 1, 300, 512] {
            let blocks = n.div_ceil(storage::BLOCK);
            every_number_is_stored(&StorageView::native(&mut vec![0.5_f32; n]));
            every_number_is_stored(&StorageView::<f64>::single(&mut vec![0.5_f32; n]));
            every_number_is_stored(&StorageView::<f32>::single(&mut vec![0.5_f32; n]));
            let mut double = vec![0.5_f64; n];
            let double = Raw::native::<f64>(&raw mut double[..]);
            // SAFETY: a vector that nobody else has while the view lives.
            every_number_is_stored::<f32>(&unsafe { StorageView::from_raw(double, nearest) });
            for half in [Half::F16, Half::Bf16] {
                every_number_is_stored(&StorageView::<f32>::half(half, &mut vec![7; n], nearest));
            }
            let mut scales = vec![0.5; blocks];
            let (mut signed, mut squares) = (vec![7; n], vec![7; n]);
            every_number_is_stored(&StorageView::<f32>::signed(
                &mut signed,
                &mut scales,
                nearest,
            ));
            every_number_is_stored(&StorageView::<f64>::squares(
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
    fn an_empty_array_may_be_at_null() {
        let null = ptr::slice_from_raw_parts_mut(ptr::null_mut::<f64>(), 0);
        // SAFETY: there are no elements.
        let view = unsafe { StorageView::<f64>::from_raw(Raw::native(null), Rounding::Nearest) };
        assert!(view.is_empty());
        // SAFETY: there are no elements.
        assert_eq!(unsafe { view.slice_mut(0, 0) }, Some(&mut [][..]));
    }

    #[test]
    #[should_panic(expected = "an array with elements has an address")]
    fn an_array_with_elements_is_not_at_null() {
        let null = ptr::slice_from_raw_parts_mut(ptr::null_mut::<f64>(), 1);
        // SAFETY: refused before it is used.
        let _ = unsafe { StorageView::<f64>::from_raw(Raw::native(null), Rounding::Nearest) };
    }

    #[test]
    #[should_panic(expected = "one scale per block")]
    fn a_scale_too_few_is_refused() {
        let _ = StorageView::<f32>::signed(&mut [0; 257], &mut [0.0], Rounding::Nearest);
    }
}
