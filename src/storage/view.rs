//! Views of arrays in any encoding.
//!
//! Kernels compute in `f32` or `f64`. An array stored in that type, a native array, is processed in
//! place. Any other array is loaded and stored in tiles that stay in the L1 cache.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::exec::isa::Tier;
use crate::numeric::float::Float;
use crate::storage::column::{CodesMut, Halves, HalvesMut, NearestMut};
use crate::storage::{self, Encoding, Half, Rounding};

/// The additional fields of an array that is not native.
#[derive(Clone, Copy, Debug)]
struct Encoded {
    encoding: Encoding,
    /// The scales, as many as [`Encoding::scales`] returns.
    scales: NonNull<f32>,
    rounding: Rounding,
}

/// The address, length and encoding of an array, from which [`StorageView::from_raw`] creates a
/// view.
#[derive(Clone, Copy, Debug)]
pub struct Raw {
    encoding: Encoding,
    data: *mut u8,
    len: usize,
    scales: *mut [f32],
}

impl Raw {
    /// Describes `len` elements at `data`, without scales.
    pub fn new(encoding: Encoding, data: *mut u8, len: usize) -> Self {
        Self {
            encoding,
            data,
            len,
            scales: ptr::slice_from_raw_parts_mut(ptr::null_mut(), 0),
        }
    }

    /// Adds the scales of the blocks.
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

/// A view of an array that kernels process as `T`.
///
/// It contains the address of the array and not a reference. References are created for the
/// elements that one thread reads or writes, and only for that time. A step creates several views
/// per parameter, so fields that most of them do not need are boxed.
#[derive(Debug)]
pub struct StorageView<'a, T> {
    data: NonNull<u8>,
    len: usize,
    encoded: Option<Box<Encoded>>,
    writable: bool,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: a view represents a borrow of the array and its scales, shared if it is read-only and
// exclusive otherwise, and borrows of numbers are `Send`.
unsafe impl<T: Float> Send for StorageView<'_, T> {}
// SAFETY: a shared view gives access to elements only through the unsafe functions below, whose
// contracts require that no other code accesses the elements, or writes them if they are only read.
unsafe impl<T: Float> Sync for StorageView<'_, T> {}

/// Returns the address of `len` elements, or a dangling one if `len` is 0.
///
/// # Panics
/// The pointer is null and `len` is not 0.
fn start<U>(data: *mut U, len: usize) -> NonNull<U> {
    if len == 0 {
        return NonNull::dangling();
    }
    NonNull::new(data).expect("an array with elements must not be null")
}

/// Describes a borrowed array whose elements have the type of the encoding.
fn raw<U>(encoding: Encoding, data: *mut [U]) -> Raw {
    debug_assert_eq!(size_of::<U>(), encoding.width());
    Raw::new(encoding, data.cast(), data.len())
}

impl<'a, T: Float> StorageView<'a, T> {
    /// A view of no elements.
    pub(crate) const EMPTY: Self = Self {
        data: NonNull::<u64>::dangling().cast(),
        len: 0,
        encoded: None,
        writable: true,
        memory: PhantomData,
    };

    #[inline]
    fn new(raw: Raw, rounding: Rounding, writable: bool) -> Self {
        let Raw {
            encoding,
            data,
            len,
            scales,
        } = raw;
        // Dangling pointers are aligned to the elements of any encoding.
        let data = start(data.cast::<u64>(), len).cast::<u8>();
        debug_assert!(data.addr().get().is_multiple_of(encoding.width()));
        let encoded = if encoding.is_native::<T>() {
            assert!(scales.is_empty(), "native arrays have no scales");
            None
        } else {
            Some(Encoded::new(encoding, len, scales, rounding))
        };
        Self {
            data,
            len,
            encoded,
            writable,
            memory: PhantomData,
        }
    }

    /// Creates a writable view from an address. The address of an empty array may be null.
    ///
    /// # Safety
    /// For `'a`, the array and its scales are allocated, aligned and initialized, the pointers are
    /// valid for reads and writes of all of them, and no other code accesses them except through
    /// the result.
    ///
    /// To merge segments with [`Segment::follows`](crate::sweep::segment::Segment::follows), the
    /// pointers must be valid for the whole allocation. A pointer from a slice is valid only for
    /// that slice.
    ///
    /// # Panics
    /// The pointer of a nonempty array is null, or the number of scales is not one per block.
    pub unsafe fn from_raw(raw: Raw, rounding: Rounding) -> Self {
        Self::new(raw, rounding, true)
    }

    /// Creates a read-only view from an address. Nothing is written through the pointers, so they
    /// may come from a `*const`.
    ///
    /// # Safety
    /// As for [`StorageView::from_raw`], except that the pointers need only be valid for reads, and
    /// other code may read the array but not write it for `'a`.
    ///
    /// # Panics
    /// As [`StorageView::from_raw`].
    #[inline]
    pub unsafe fn read_from_raw(raw: Raw) -> Self {
        Self::new(raw, Rounding::Nearest, false)
    }

    /// Creates a view of numbers stored in the type of computation.
    pub fn native(data: &'a mut [T]) -> Self {
        // SAFETY: the slice is borrowed exclusively for `'a`.
        unsafe { Self::from_raw(Raw::native(data), Rounding::Nearest) }
    }

    /// Creates a read-only view of numbers stored in the type of computation.
    pub fn read(data: &'a [T]) -> Self {
        // SAFETY: the slice is borrowed as shared for `'a`, so no other code writes it.
        unsafe { Self::read_from_raw(Raw::native(ptr::from_ref(data).cast_mut())) }
    }

    /// Creates a read-only view of numbers in a 16-bit format.
    pub fn read_half(format: Half, data: &'a [u16]) -> Self {
        // SAFETY: the slice is borrowed as shared for `'a`, so no other code writes it.
        unsafe { Self::read_from_raw(raw(Encoding::Half(format), ptr::from_ref(data).cast_mut())) }
    }

    /// Creates a view of numbers stored as `f32`.
    pub fn single(data: &'a mut [f32]) -> Self {
        // SAFETY: the slice is borrowed exclusively for `'a`.
        unsafe { Self::from_raw(raw(Encoding::F32, data), Rounding::Nearest) }
    }

    /// Creates a view of numbers in a 16-bit format.
    pub fn half(format: Half, data: &'a mut [u16], rounding: Rounding) -> Self {
        // SAFETY: the slice is borrowed exclusively for `'a`.
        unsafe { Self::from_raw(raw(Encoding::Half(format), data), rounding) }
    }

    /// Creates a view of signed numbers in 8 bits, with a scale per [`storage::BLOCK`] elements.
    ///
    /// # Panics
    /// The number of scales is wrong.
    pub fn signed(data: &'a mut [i8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        // SAFETY: both slices are borrowed exclusively for `'a`.
        unsafe { Self::from_raw(raw(Encoding::Signed, data).with_scales(scales), rounding) }
    }

    /// Creates a view of squares in 8 bits, with a scale per [`storage::BLOCK`] elements.
    ///
    /// # Panics
    /// The number of scales is wrong.
    pub fn squares(data: &'a mut [u8], scales: &'a mut [f32], rounding: Rounding) -> Self {
        // SAFETY: both slices are borrowed exclusively for `'a`.
        unsafe { Self::from_raw(raw(Encoding::Squares, data).with_scales(scales), rounding) }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether the array is stored in the type of computation.
    pub(crate) fn is_native(&self) -> bool {
        self.encoded.is_none()
    }

    /// Returns whether the elements of a block share a scale.
    pub(crate) fn is_scaled(&self) -> bool {
        let encoded = self.encoded.as_ref();
        encoded.is_some_and(|encoded| encoded.encoding.is_scaled())
    }

    /// Returns whether the array may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Returns the address of a native array.
    fn start(&self) -> *mut T {
        debug_assert!(self.is_native());
        self.data.as_ptr().cast()
    }

    /// Extends the view by `next`, which must start where this view ends.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.len += next.len;
    }

    /// Returns the address of an element of a native array, which may be outside the array, or
    /// another address for other arrays.
    pub(crate) fn address(&self, index: usize) -> *const T {
        let start: *const T = self.data.as_ptr().cast();
        start.wrapping_add(index)
    }

    /// Returns whether both arrays are native and `next` starts where this array ends.
    pub(crate) fn meets(&self, next: &Self) -> bool {
        self.is_native()
            && next.is_native()
            && ptr::eq(self.start().wrapping_add(self.len), next.start())
    }

    /// Borrows the elements `from..to` of a native array. Returns `None` for other arrays.
    ///
    /// # Safety
    /// `from <= to <= len`, and no other code writes these elements while the result exists.
    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> Option<&'a [T]> {
        debug_assert!(from <= to && to <= self.len);
        // SAFETY: a native array is stored as `T`. By this function's contract the range is inside,
        // and no other code writes its elements.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts(self.start().add(from), to - from) })
    }

    /// Borrows the elements `from..to` of a native array for writing. Returns `None` for other
    /// arrays.
    ///
    /// # Safety
    /// `from <= to <= len`, the array is writable, and no other code accesses these elements while
    /// the result exists.
    pub(crate) unsafe fn slice_mut(&self, from: usize, to: usize) -> Option<&'a mut [T]> {
        debug_assert!(self.writable && from <= to && to <= self.len);
        // SAFETY: a native array is stored as `T`. By this function's contract the range is inside
        // the writable array, and no other code accesses its elements.
        self.is_native()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.start().add(from), to - from) })
    }

    /// Borrows the elements `from..to` of a bfloat16 array. Returns `None` for other arrays.
    ///
    /// # Safety
    /// As for [`slice`](Self::slice).
    pub(crate) unsafe fn halves(&self, from: usize, to: usize) -> Option<Halves<'a>> {
        debug_assert!(from <= to && to <= self.len);
        let encoded = self.encoded.as_ref()?;
        // SAFETY: the elements are aligned `u16`. By this function's contract the range is inside,
        // and no other code writes its elements.
        (encoded.encoding == Encoding::Half(Half::Bf16)).then(|| unsafe {
            Halves::new(std::slice::from_raw_parts(self.at(from).cast(), to - from))
        })
    }

    /// Borrows the elements `from..to` of a bfloat16 array with stochastic rounding for writing.
    /// Returns `None` for other arrays, and if `from` is inside a run of random numbers.
    ///
    /// # Safety
    /// As for [`slice_mut`](Self::slice_mut).
    pub(crate) unsafe fn halves_mut(&self, from: usize, to: usize) -> Option<HalvesMut<'a>> {
        debug_assert!(self.writable && from <= to && to <= self.len);
        let encoded = self.encoded.as_ref()?;
        let (Encoding::Half(Half::Bf16), Rounding::Stochastic(noise)) =
            (encoded.encoding, encoded.rounding)
        else {
            return None;
        };
        // SAFETY: the elements are aligned `u16`. By this function's contract the range is inside
        // the writable array, and no other code accesses its elements.
        let halves = unsafe { std::slice::from_raw_parts_mut(self.at(from).cast(), to - from) };
        HalvesMut::new(halves, noise.skip(from))
    }

    /// Borrows the elements `from..to` of a bfloat16 array with rounding to nearest for writing.
    /// Returns `None` for other arrays.
    ///
    /// # Safety
    /// As for [`slice_mut`](Self::slice_mut).
    pub(crate) unsafe fn nearest_mut(&self, from: usize, to: usize) -> Option<NearestMut<'a>> {
        debug_assert!(self.writable && from <= to && to <= self.len);
        let encoded = self.encoded.as_ref()?;
        let bf16 = encoded.encoding == Encoding::Half(Half::Bf16);
        // SAFETY: the elements are aligned `u16`. By this function's contract the range is inside
        // the writable array, and no other code accesses its elements.
        (bf16 && encoded.rounding == Rounding::Nearest).then(|| unsafe {
            NearestMut::new(std::slice::from_raw_parts_mut(
                self.at(from).cast(),
                to - from,
            ))
        })
    }

    /// Borrows the elements `from..to`, which are whole blocks, of an array of 8-bit numbers for
    /// writing. Returns `None` for other encodings than `encoding`.
    ///
    /// # Safety
    /// As for [`slice_mut`](Self::slice_mut).
    pub(crate) unsafe fn codes_mut(
        &self,
        from: usize,
        to: usize,
        encoding: Encoding,
    ) -> Option<CodesMut<'a>> {
        debug_assert!(self.writable && from <= to && to <= self.len);
        let encoded = self.encoded.as_ref()?;
        if encoded.encoding != encoding || !encoding.is_scaled() {
            return None;
        }
        // SAFETY: the elements are bytes, and there is a scale for each block. By this function's
        // contract the range is inside the writable array, and no other code accesses its elements
        // or their scales.
        unsafe {
            let codes = std::slice::from_raw_parts_mut(self.at(from), to - from);
            let scales = encoded.scales_mut(from, to - from);
            Some(CodesMut::new(codes, scales, encoded.rounding.skip(from)))
        }
    }

    /// Returns the address of the stored element `from`.
    ///
    /// # Safety
    /// `from <= len`.
    unsafe fn at(&self, from: usize) -> *mut u8 {
        let width = match &self.encoded {
            None => size_of::<T>(),
            Some(encoded) => encoded.encoding.width(),
        };
        // SAFETY: the array has `len` elements of this width, and `from` is at most `len`.
        unsafe { self.data.as_ptr().add(from * width) }
    }

    /// Loads `out.len()` elements from index `from`, which starts a block.
    ///
    /// # Safety
    /// `from + out.len()` is at most the length, and no other code writes these elements during the
    /// call.
    pub(crate) unsafe fn load(&self, from: usize, out: &mut [T], tier: Tier) {
        let n = out.len();
        debug_assert!(from + n <= self.len);
        // SAFETY: the elements have this encoding and are aligned. By this function's contract they
        // are inside, and no other code writes them. Scales are written only with their blocks.
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

    /// Returns `tile.len()` elements from index `from`, which starts a block: in place for a native
    /// array, otherwise loaded into `tile`.
    ///
    /// # Safety
    /// `from + tile.len()` is at most the length, and no other code writes these elements while the
    /// result exists.
    pub(crate) unsafe fn read_into<'s>(&self, from: usize, tile: &'s mut [T], tier: Tier) -> &'s [T]
    where
        'a: 's,
    {
        // SAFETY: by this function's contract the elements are inside, and no other code writes
        // them.
        unsafe {
            if let Some(own) = self.slice(from, from + tile.len()) {
                return own;
            }
            self.load(from, tile, tier);
        }
        tile
    }

    /// Stores `new` from index `from`, which starts a block.
    ///
    /// # Safety
    /// `from + new.len()` is at most the length, the array is writable, and no other code accesses
    /// these elements during the call.
    pub(crate) unsafe fn store(&self, from: usize, new: &[T], tier: Tier) {
        let n = new.len();
        debug_assert!(self.writable && from + n <= self.len);
        // SAFETY: the elements have this encoding and are aligned. By this function's contract they
        // are inside the writable array, and no other code accesses them. Scales are accessed only
        // with their blocks, which one call stores as a whole.
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

    /// Sets the elements `from..to` to 0, where `from` starts a block.
    ///
    /// # Safety
    /// `from <= to <= len`, the array is writable, and no other code accesses these elements during
    /// the call.
    pub(crate) unsafe fn clear(&self, from: usize, to: usize) {
        debug_assert!(self.writable && from <= to && to <= self.len);
        // SAFETY: all bits 0 are valid in every encoding. By this function's contract the elements
        // are inside the writable array, and no other code accesses them.
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
    /// Creates the fields of an array of `len` elements.
    #[inline(never)]
    fn new(encoding: Encoding, len: usize, scales: *mut [f32], rounding: Rounding) -> Box<Self> {
        let count = encoding.scales(len);
        assert_eq!(scales.len(), count, "there must be one scale per block");
        Box::new(Self {
            encoding,
            scales: start(scales.cast::<f32>(), count),
            rounding,
        })
    }

    /// Borrows the scales of `len` elements from index `from`, which starts a block.
    ///
    /// # Safety
    /// `from + len` is at most the length of the array, and no other code writes these elements
    /// while the result exists.
    unsafe fn scales(&self, from: usize, len: usize) -> &[f32] {
        let blocks = self.encoding.scales(len);
        if blocks == 0 {
            return &[];
        }
        debug_assert!(from.is_multiple_of(storage::BLOCK));
        // SAFETY: there is a scale for each block. By this function's contract these blocks are
        // inside, and no other code writes them.
        unsafe {
            let first = self.scales.as_ptr().add(from / storage::BLOCK);
            std::slice::from_raw_parts(first, blocks)
        }
    }

    /// Borrows the same scales for writing.
    ///
    /// # Safety
    /// `from + len` is at most the length of the array, which is writable and exists as long as the
    /// result, and no other code accesses these elements while the result exists.
    unsafe fn scales_mut<'s>(&self, from: usize, len: usize) -> &'s mut [f32] {
        let blocks = self.encoding.scales(len);
        if blocks == 0 {
            return &mut [];
        }
        debug_assert!(from.is_multiple_of(storage::BLOCK));
        // SAFETY: there is a scale for each block. By this function's contract these blocks are
        // inside the writable array, and no other code accesses them.
        unsafe {
            let first = self.scales.as_ptr().add(from / storage::BLOCK);
            std::slice::from_raw_parts_mut(first, blocks)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns numbers that all encodings represent exactly.
    fn exact<T: Float>(n: usize) -> Vec<T> {
        (0..n).map(|i| T::from_f64([0.0, 1.0][i % 2])).collect()
    }

    fn check_store_and_clear<T: Float>(view: &StorageView<'_, T>) {
        let n = view.len();
        let (new, mut got) = (exact::<T>(n), vec![T::ONE; n]);
        // SAFETY: all ranges are inside the array, which is writable, and no other code uses the
        // view.
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
    fn every_encoding_stores_and_clears_numbers() {
        let nearest = Rounding::Nearest;
        for n in [0_usize, 1, 300, 512] {
            let blocks = n.div_ceil(storage::BLOCK);
            check_store_and_clear(&StorageView::native(&mut vec![0.5_f32; n]));
            check_store_and_clear(&StorageView::<f64>::single(&mut vec![0.5_f32; n]));
            check_store_and_clear(&StorageView::<f32>::single(&mut vec![0.5_f32; n]));
            let mut double = vec![0.5_f64; n];
            let double = Raw::native::<f64>(&raw mut double[..]);
            // SAFETY: the vector is not used while the view exists.
            check_store_and_clear::<f32>(&unsafe { StorageView::from_raw(double, nearest) });
            for half in [Half::F16, Half::Bf16] {
                check_store_and_clear(&StorageView::<f32>::half(half, &mut vec![7; n], nearest));
            }
            let mut scales = vec![0.5; blocks];
            let (mut signed, mut squares) = (vec![7; n], vec![7; n]);
            check_store_and_clear(&StorageView::<f32>::signed(
                &mut signed,
                &mut scales,
                nearest,
            ));
            check_store_and_clear(&StorageView::<f64>::squares(
                &mut squares,
                &mut scales,
                nearest,
            ));
        }
    }

    #[test]
    fn a_read_only_view_never_borrows_for_writing() {
        static SINGLE: [f32; 3] = [1.0, 2.0, 3.0];
        static HALF: [u16; 3] = [0x3F80, 0x4000, 0x4040];
        let read = [
            StorageView::read(&SINGLE),
            StorageView::read_half(Half::Bf16, &HALF),
        ];
        // Shared references that exist at the same time.
        let (single, half) = (&SINGLE[1], &HALF[1]);
        for view in &read {
            assert!(!view.is_writable());
            let mut got = [0.0; 3];
            // SAFETY: the range is inside the array, and no code writes an immutable static.
            unsafe { view.load(0, &mut got, Tier::Baseline) };
            assert_eq!(got, SINGLE);
        }
        assert_eq!((*single, *half), (2.0, 0x4000));
    }

    #[test]
    fn an_empty_array_may_be_at_null() {
        let null = ptr::slice_from_raw_parts_mut(ptr::null_mut::<f64>(), 0);
        // SAFETY: the array has no elements.
        let view = unsafe { StorageView::<f64>::from_raw(Raw::native(null), Rounding::Nearest) };
        assert!(view.is_empty());
        // SAFETY: the array has no elements.
        assert_eq!(unsafe { view.slice_mut(0, 0) }, Some(&mut [][..]));
    }

    #[test]
    #[should_panic(expected = "an array with elements must not be null")]
    fn a_null_array_with_elements_is_rejected() {
        let null = ptr::slice_from_raw_parts_mut(ptr::null_mut::<f64>(), 1);
        // SAFETY: the constructor panics before the pointer is used.
        let _ = unsafe { StorageView::<f64>::from_raw(Raw::native(null), Rounding::Nearest) };
    }

    #[test]
    #[should_panic(expected = "there must be one scale per block")]
    fn a_missing_scale_is_rejected() {
        let _ = StorageView::<f32>::signed(&mut [0; 257], &mut [0.0], Rounding::Nearest);
    }
}
