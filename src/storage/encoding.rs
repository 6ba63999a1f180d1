//! Encodings of the numbers of an array.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::{BLOCK, Half, Rounding};
use super::{load_half, load_signed, load_squares, store_half, store_signed, store_squares};
use crate::exec::isa::Tier;
use crate::numeric::float::Float;

/// The encoding of the numbers of an array. In each of them, all bits 0 represent the number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `f64`.
    F64,
    /// `f32`.
    F32,
    /// A 16-bit floating-point format.
    Half(Half),
    /// Signed numbers in 8 bits with a scale per block.
    Signed,
    /// Squares in 8 bits with a scale per block, which is a square root.
    Squares,
}

impl Encoding {
    /// The encodings available for the moments of an optimizer.
    pub const MOMENTS: [Self; 3] = [Self::F32, Self::Half(Half::Bf16), Self::Signed];

    /// Returns NumPy's name of the element type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::Half(Half::F16) => "float16",
            Self::Half(Half::Bf16) => "bfloat16",
            Self::Signed => "int8",
            Self::Squares => "uint8",
        }
    }

    /// Returns the number of bytes per element, which is also the alignment of an array.
    pub const fn width(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::Half(_) => 2,
            Self::Signed | Self::Squares => 1,
        }
    }

    /// Returns whether the elements of a block share a scale.
    pub const fn is_scaled(self) -> bool {
        matches!(self, Self::Signed | Self::Squares)
    }

    /// Returns the number of scales of an array of `len` elements: one per full or partial
    /// [`BLOCK`], or 0 for encodings without scales.
    pub const fn scales(self, len: usize) -> usize {
        if self.is_scaled() {
            len.div_ceil(BLOCK)
        } else {
            0
        }
    }

    /// Returns whether [`Rounding`] applies to stored numbers. An `f64` is always rounded to the
    /// nearest `f32`.
    pub const fn is_rounded(self) -> bool {
        self.width() < 4
    }

    /// Returns the encoding of second moments if first moments have this encoding.
    #[must_use]
    pub const fn of_squares(self) -> Self {
        match self {
            Self::Signed => Self::Squares,
            other => other,
        }
    }

    /// Returns whether this is the encoding of `T` in memory.
    pub(super) fn is_native<T: Float>(self) -> bool {
        match self {
            Self::F64 => size_of::<T>() == 8,
            Self::F32 => size_of::<T>() == 4,
            _ => false,
        }
    }

    /// Decodes `out.len()` elements.
    ///
    /// # Safety
    /// `data` points to `out.len()` aligned and initialized elements of this encoding, and no other
    /// code writes them during the call.
    ///
    /// # Panics
    /// The encoding is scaled and the number of scales is not one per block.
    pub(super) unsafe fn load<T: Float>(
        self,
        data: *const u8,
        scales: &[f32],
        out: &mut [T],
        tier: Tier,
    ) {
        let n = out.len();
        // SAFETY: each encoding is read as the type of its elements. By this function's contract
        // there are `n` of them, and no other code writes them.
        unsafe {
            match self {
                Self::F64 => {
                    let data = from_raw_parts(data.cast::<f64>(), n);
                    for i in 0..n {
                        out[i] = T::from_f64(data[i]);
                    }
                }
                Self::F32 => {
                    let data = from_raw_parts(data.cast::<f32>(), n);
                    for i in 0..n {
                        out[i] = T::from_f32(data[i]);
                    }
                }
                Self::Half(half) => load_half(half, from_raw_parts(data.cast(), n), out, tier),
                Self::Signed => load_signed(from_raw_parts(data.cast(), n), scales, out, tier),
                Self::Squares => load_squares(from_raw_parts(data.cast(), n), scales, out, tier),
            }
        }
    }

    /// Encodes all elements of `new`.
    ///
    /// # Safety
    /// `data` points to `new.len()` aligned, initialized and writable elements of this encoding,
    /// and no other code accesses them during the call.
    ///
    /// # Panics
    /// As [`Encoding::load`].
    pub(super) unsafe fn store<T: Float>(
        self,
        new: &[T],
        data: *mut u8,
        scales: &mut [f32],
        rounding: Rounding,
        tier: Tier,
    ) {
        let n = new.len();
        // SAFETY: each encoding is written as the type of its elements. By this function's contract
        // there are `n` writable elements, and no other code accesses them.
        unsafe {
            match self {
                Self::F64 => {
                    let data = from_raw_parts_mut(data.cast::<f64>(), n);
                    for i in 0..n {
                        data[i] = new[i].to_f64();
                    }
                }
                Self::F32 => {
                    let data = from_raw_parts_mut(data.cast::<f32>(), n);
                    for i in 0..n {
                        data[i] = new[i].to_f64() as f32;
                    }
                }
                Self::Half(half) => {
                    let data = from_raw_parts_mut(data.cast(), n);
                    store_half(half, new, data, rounding, tier);
                }
                Self::Signed => {
                    let data = from_raw_parts_mut(data.cast(), n);
                    store_signed(new, data, scales, rounding, tier);
                }
                Self::Squares => {
                    let data = from_raw_parts_mut(data.cast(), n);
                    store_squares(new, data, scales, rounding, tier);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_numpy_and_widths_are_element_sizes() {
        let expected = [
            (Encoding::F64, "float64", size_of::<f64>()),
            (Encoding::F32, "float32", size_of::<f32>()),
            (Encoding::Half(Half::F16), "float16", size_of::<u16>()),
            (Encoding::Half(Half::Bf16), "bfloat16", size_of::<u16>()),
            (Encoding::Signed, "int8", size_of::<i8>()),
            (Encoding::Squares, "uint8", size_of::<u8>()),
        ];
        for (encoding, name, width) in expected {
            assert_eq!((encoding.name(), encoding.width()), (name, width));
            let scales = [0, 1, BLOCK, BLOCK + 1].map(|len| encoding.scales(len));
            let scaled = encoding.is_scaled();
            assert_eq!(scales, if scaled { [0, 1, 1, 2] } else { [0; 4] });
        }
    }

    #[test]
    fn each_arithmetic_type_has_one_native_encoding() {
        for encoding in Encoding::MOMENTS.into_iter().chain([Encoding::F64]) {
            assert_eq!(encoding.is_native::<f32>(), encoding == Encoding::F32);
            assert_eq!(encoding.is_native::<f64>(), encoding == Encoding::F64);
        }
    }
}
