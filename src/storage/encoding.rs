//! Encodings: how the numbers of an array are stored.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::{BLOCK, Half, Rounding};
use super::{load_half, load_signed, load_squares, store_half, store_signed, store_squares};
use crate::exec::isa::Tier;
use crate::numeric::float::Float;

/// How the numbers of an array are stored. All bits 0 are the number 0 in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As `f64`.
    F64,
    /// As `f32`.
    F32,
    /// In 16 bits.
    Half(Half),
    /// Of either sign, in 8 bits with a scale per block.
    Signed,
    /// Not negative, as roots in 8 bits with a scale per block.
    Squares,
}

impl Encoding {
    /// Those that the moments of an optimizer may have.
    pub const MOMENTS: [Self; 3] = [Self::F32, Self::Half(Half::Bf16), Self::Signed];

    /// NumPy's name of the elements.
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

    /// Bytes per element, which an array is aligned to.
    pub const fn width(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::Half(_) => 2,
            Self::Signed | Self::Squares => 1,
        }
    }

    /// Whether the elements of a block share a scale.
    pub const fn is_scaled(self) -> bool {
        matches!(self, Self::Signed | Self::Squares)
    }

    /// How many scales an array of `len` elements has: one per started [`BLOCK`], or none.
    pub const fn scales(self, len: usize) -> usize {
        if self.is_scaled() {
            len.div_ceil(BLOCK)
        } else {
            0
        }
    }

    /// Whether [`Rounding`] applies to stored numbers. A `f64` is always rounded to the nearest
    /// `f32`.
    pub const fn is_rounded(self) -> bool {
        self.width() < 4
    }

    /// The encoding of squares beside numbers of this encoding.
    #[must_use]
    pub const fn of_squares(self) -> Self {
        match self {
            Self::Signed => Self::Squares,
            other => other,
        }
    }

    /// Whether this is how `T` is represented in memory.
    pub(super) fn is_native<T: Float>(self) -> bool {
        match self {
            Self::F64 => size_of::<T>() == 8,
            Self::F32 => size_of::<T>() == 4,
            _ => false,
        }
    }

    /// Decodes as many elements as `out` has.
    ///
    /// # Safety
    /// `out.len()` initialized elements of this encoding are at `data`, aligned, and nobody writes
    /// them meanwhile.
    ///
    /// # Panics
    /// The encoding is scaled and there is not one scale per block.
    pub(super) unsafe fn load<T: Float>(
        self,
        data: *const u8,
        scales: &[f32],
        out: &mut [T],
        tier: Tier,
    ) {
        let n = out.len();
        // SAFETY: each encoding is read as the type of its elements, of which there are `n` that
        // nobody writes, by this function's contract.
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

    /// Encodes all of `new`.
    ///
    /// # Safety
    /// `new.len()` initialized elements of this encoding are at `data`, aligned, may be written, and
    /// nobody else reads or writes them meanwhile.
    ///
    /// # Panics
    /// As `load`.
    pub(super) unsafe fn store<T: Float>(
        self,
        new: &[T],
        data: *mut u8,
        scales: &mut [f32],
        rounding: Rounding,
        tier: Tier,
    ) {
        let n = new.len();
        // SAFETY: each encoding is written as the type of its elements, of which there are `n` that
        // may be written and that nobody else has, by this function's contract.
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
    fn names_are_those_of_numpy_and_widths_those_of_the_elements() {
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
