//! Instruction sets. No other module depends on the available instructions.
//!
//! A [`Kernel`] is a plain loop. [`Tier::run`] calls it from a function compiled for one
//! instruction set. A kernel's `run` is `#[inline(always)]`, so the loop is compiled for each
//! instruction set. Rust neither contracts `a * b + c` nor reorders floating-point operations, so
//! all tiers give bitwise identical results and differ only in speed.
//!
//! The environment variable `FASTOPTIM_ISA` forces a tier for the process, [`with_tier`] for one
//! call.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::numeric::float::Float;

/// A loop to be compiled for every tier.
///
/// Kernels are structs because closures do not inherit the target features of the enclosing
/// function. `run` and everything it calls per element must be `#[inline(always)]`. Use `for`
/// loops: iterator adaptors such as `for_each` call library functions, which are compiled without
/// the features.
pub trait Kernel {
    /// The result of the loop.
    type Output;
    /// Runs the loop.
    fn run(self) -> Self::Output;
    /// Runs the loop on AVX-512, which has twice as many vector registers as the other tiers of
    /// x86-64. It must have the same result.
    #[inline(always)]
    fn run_wide(self) -> Self::Output
    where
        Self: Sized,
    {
        self.run()
    }
}

/// Proof that this processor has an instruction set. Only this module creates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(());

/// An instruction set of this processor for which kernels are compiled.
///
/// [`Tier::supported`] and parsing a name check the processor. There is no other way to obtain a
/// tier other than the baseline:
///
/// ```
/// use fastoptim::exec::isa::Tier;
///
/// assert_eq!("baseline".parse(), Ok(Tier::Baseline));
/// let fastest = *Tier::supported().last().expect("at least the baseline");
/// assert_eq!(fastest.name().parse(), Ok(fastest));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The instructions that every processor of the architecture has (SSE2 on x86-64).
    Baseline,
    /// AVX2 with FMA and F16C: x86-64-v3.
    Avx2(Checked),
    /// AVX-512 F, BW, CD, DQ and VL: x86-64-v4.
    Avx512(Checked),
    /// Advanced SIMD, which every aarch64 processor has.
    Neon(Checked),
}

/// All tiers, slowest first, including those that this processor lacks. Must not leave this module.
const ALL: [Tier; 4] = [
    Tier::Baseline,
    Tier::Avx2(Checked(())),
    Tier::Avx512(Checked(())),
    Tier::Neon(Checked(())),
];

impl Tier {
    /// Returns the name used in `FASTOPTIM_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2(_) => "avx2",
            Self::Avx512(_) => "avx512",
            Self::Neon(_) => "neon",
        }
    }

    /// Returns whether this processor has the tier. Every [`Checked`] outside this module relies on
    /// it.
    fn is_supported(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(checked) => {
                Self::Avx2(checked).is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512cd")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Returns whether the tier has 32 registers of 512 bits.
    pub(crate) fn is_wide(self) -> bool {
        matches!(self, Self::Avx512(_))
    }

    /// Runs a kernel compiled for this tier.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX2, FMA, F16C, BMI1 and BMI2, because this module returns
            // `Avx2(Checked)` only if `is_supported` has found them.
            Self::Avx2(_) => unsafe { avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the features of `avx512`, because this module returns
            // `Avx512(Checked)` only if `is_supported` has found them.
            Self::Avx512(_) => unsafe { avx512(kernel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the processor has Advanced SIMD, because this module returns `Neon(Checked)`
            // only if `is_supported` has found it.
            Self::Neon(_) => unsafe { neon(kernel) },
            _ => baseline(kernel),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A function of its own, as those of the other tiers, so that each kernel is compiled once per
/// tier and not once per call.
#[inline(never)]
fn baseline<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run_wide()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

impl Tier {
    /// Returns the tiers of this processor, slowest first.
    pub fn supported() -> Vec<Self> {
        ALL.into_iter().filter(|tier| tier.is_supported()).collect()
    }
}

impl FromStr for Tier {
    type Err = Error;

    /// Returns the tier with this name, if this processor has it.
    fn from_str(name: &str) -> Result<Self> {
        match ALL.into_iter().find(|tier| tier.name() == name) {
            Some(tier) if tier.is_supported() => Ok(tier),
            Some(tier) => Err(Error::Value(format!("this processor has no {tier}"))),
            None => {
                let names = ALL.map(Self::name).join(", ");
                Err(Error::Value(format!(
                    "unknown instruction set {name:?}; expected one of {names}"
                )))
            }
        }
    }
}

/// Keeps the iterations of the loop that calls this apart, at no cost at run time. Otherwise LLVM
/// may vectorize a loop over arrays of constant size across its iterations for AVX-512, with a
/// gather for every element of these arrays, instead of vectorizing what is done with each.
#[inline(always)]
pub(crate) fn one_iteration() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: there are no instructions.
    unsafe {
        std::arch::asm!("", options(nomem, nostack, preserves_flags));
    }
}

/// Keeps a value in memory at this point, so that the compiler chooses registers before and after
/// it independently of each other. Otherwise an array that is summed up after a loop may be one
/// register per element in the loop, too. Does nothing on processors other than x86-64.
#[inline(always)]
pub(crate) fn keep_in_memory<T>(value: &mut T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: there are no instructions.
    unsafe {
        std::arch::asm!("/* {} */", in(reg) value, options(nostack, preserves_flags));
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = value;
}

/// Prefetches the cache line at an address, which need not be valid. Does nothing on processors
/// other than x86-64.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: x86-64 includes SSE, and a prefetch of an invalid address does not fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Bytes per store of [`stream`], and the alignment that it requires.
pub(crate) const STREAMED: usize = 16;

impl Tier {
    /// Returns whether kernels of this tier may call [`stream`].
    pub(crate) fn streams(self) -> bool {
        cfg!(not(miri)) && matches!(self, Self::Avx2(_) | Self::Avx512(_))
    }
}

/// Writes a piece past the caches, so that the processor does not first read these lines from
/// memory.
///
/// # Safety
/// [`Tier::streams`] of a tier of this processor is true, `N` elements from `to` can be written,
/// `to` is aligned to [`STREAMED`] bytes, and the thread calls [`fence`] before it or any other
/// thread accesses them.
#[inline(always)]
pub(crate) unsafe fn stream<T: Float, const N: usize>(to: *mut T, piece: &[T; N]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::asm;
        use std::arch::x86_64::__m128;
        const { assert!(size_of::<[T; N]>().is_multiple_of(STREAMED)) };
        let from: *const __m128 = piece.as_ptr().cast();
        let to: *mut __m128 = to.cast();
        for i in 0..size_of::<[T; N]>() / STREAMED {
            // SAFETY: the unit is inside the piece, which has no padding, and by this function's
            // contract inside the memory at `to`, where it is aligned. The processor has AVX, as
            // the tiers do for which `streams` is true. Not by the intrinsic, whose instruction is
            // in the encoding of SSE: among those of AVX, it may take 70 cycles (Haswell).
            unsafe {
                asm!(
                    "vmovntps [{}], {}",
                    in(reg) to.add(i),
                    in(xmm_reg) from.add(i).read_unaligned(),
                    options(nostack, preserves_flags)
                );
            }
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    // SAFETY: by this function's contract.
    unsafe {
        to.cast::<[T; N]>().write(*piece);
    }
}

/// Completes the writes of [`stream`] by this thread.
pub(crate) fn fence() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: x86-64 includes SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Transposes a square in registers. Compilers build its columns element by element, with twice as
/// many instructions.
#[inline(always)]
pub(crate) fn transpose(square: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: x86-64 includes SSE; a register and an array of four `f32` are the same bits.
    unsafe {
        use std::arch::x86_64::{
            __m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
        };
        let [a, b, c, d] = std::mem::transmute::<[[f32; 4]; 4], [__m128; 4]>(square);
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (rest_ab, rest_cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        std::mem::transmute::<[__m128; 4], [[f32; 4]; 4]>([
            _mm_movelh_ps(ab, cd),
            _mm_movehl_ps(cd, ab),
            _mm_movelh_ps(rest_ab, rest_cd),
            _mm_movehl_ps(rest_cd, rest_ab),
        ])
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|i| std::array::from_fn(|j| square[j][i]))
}

impl Tier {
    /// Converts float16 numbers from the first on, as many as this tier has instructions for, and
    /// returns their number. A NaN becomes quiet.
    ///
    /// # Panics
    /// The lengths differ.
    pub(crate) fn load_f16(self, from: &[u16], to: &mut [f32]) -> usize {
        assert_eq!(from.len(), to.len());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has F16C, because this module returns `Avx2(Checked)` and
            // `Avx512(Checked)` only if `is_supported` has found it.
            Self::Avx2(_) | Self::Avx512(_) => unsafe { f16c::load(from, to) },
            _ => 0,
        }
    }

    /// Rounds numbers to the nearest float16, ties to even, from the first on, as many as this tier
    /// has instructions for, and returns their number. Stops at a NaN, of which the instructions
    /// keep bits.
    ///
    /// # Panics
    /// The lengths differ.
    pub(crate) fn store_f16(self, from: &[f32], to: &mut [u16]) -> usize {
        assert_eq!(from.len(), to.len());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `load_f16`.
            Self::Avx2(_) | Self::Avx512(_) => unsafe { f16c::store(from, to) },
            _ => 0,
        }
    }
}

/// The instructions for float16 of x86-64-v3.
#[cfg(target_arch = "x86_64")]
mod f16c {
    use std::arch::x86_64::{
        __m128i, __m256, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm256_cmp_ps, _mm256_cvtph_ps,
        _mm256_cvtps_ph, _mm256_testz_ps,
    };
    use std::mem::transmute;

    /// Elements per instruction.
    const GROUP: usize = 8;

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn load(from: &[u16], to: &mut [f32]) -> usize {
        let (from, to) = (from.as_chunks::<GROUP>().0, to.as_chunks_mut::<GROUP>().0);
        for (from, to) in from.iter().zip(&mut *to) {
            // SAFETY: a register and an array of as many numbers are the same bits.
            unsafe {
                let halves = transmute::<[u16; GROUP], __m128i>(*from);
                *to = transmute::<__m256, [f32; GROUP]>(_mm256_cvtph_ps(halves));
            }
        }
        to.len() * GROUP
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn store(from: &[f32], to: &mut [u16]) -> usize {
        let (from, to) = (from.as_chunks::<GROUP>().0, to.as_chunks_mut::<GROUP>().0);
        for (index, (from, to)) in from.iter().zip(&mut *to).enumerate() {
            // SAFETY: as in `load`.
            let x = unsafe { transmute::<[f32; GROUP], __m256>(*from) };
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
            if _mm256_testz_ps(nan, nan) == 0 {
                return index * GROUP;
            }
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
            // SAFETY: as in `load`.
            *to = unsafe { transmute::<__m128i, [u16; GROUP]>(halves) };
        }
        to.len() * GROUP
    }
}

/// The environment variable that sets the tier of the process.
pub const VARIABLE: &str = "FASTOPTIM_ISA";

static CHOSEN: OnceLock<Tier> = OnceLock::new();

thread_local! {
    static FORCED: Cell<Option<Tier>> = const { Cell::new(None) };
}

/// Chooses the tier of the process: that in `FASTOPTIM_ISA`, or the fastest one of the processor.
///
/// # Errors
/// The variable names an unknown or unsupported tier. The choice is left open.
pub fn choose() -> Result<Tier> {
    if let Some(&tier) = CHOSEN.get() {
        return Ok(tier);
    }
    let tier = match std::env::var_os(VARIABLE) {
        // A value that is not Unicode is not a name. The message shows it with replacement
        // characters.
        Some(name) if !name.is_empty() => name
            .to_string_lossy()
            .parse::<Tier>()
            .map_err(|error| Error::Value(format!("{VARIABLE}: {error}")))?,
        _ => *Tier::supported()
            .last()
            .expect("the baseline is always supported"),
    };
    Ok(*CHOSEN.get_or_init(|| tier))
}

/// Returns the tier of this thread's calls. Drivers call this once, on the calling thread, and pass
/// the tier to all workers.
///
/// # Panics
/// `FASTOPTIM_ISA` is not the name of a tier of this processor. [`choose`] returns that as an
/// error.
#[inline]
pub fn current() -> Tier {
    FORCED.get().unwrap_or_else(|| match CHOSEN.get() {
        Some(&tier) => tier,
        None => choose().unwrap_or_else(|error| panic!("{error}")),
    })
}

/// Calls `f` and runs all kernels that this thread starts in it on `tier`.
///
/// # Errors
/// This processor does not have the tier.
pub fn with_tier<T>(tier: Tier, f: impl FnOnce() -> T) -> Result<T> {
    struct Restore(Option<Tier>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(Some(tier)));
    Ok(f())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_supported_tiers_parse_and_others_are_rejected() {
        let supported = Tier::supported();
        for tier in ALL {
            match tier.name().parse::<Tier>() {
                Ok(parsed) => assert!(parsed == tier && supported.contains(&tier)),
                Err(error) => {
                    assert!(!supported.contains(&tier));
                    assert!(error.to_string().contains("this processor has no"));
                }
            }
        }
        // No processor has both AVX-512 and Advanced SIMD.
        assert!((1..ALL.len()).contains(&supported.len()));
        let unknown = "sse9".parse::<Tier>().unwrap_err();
        assert!(unknown.to_string().contains("sse9"));
    }

    #[test]
    fn a_forced_tier_is_restored_after_the_call() {
        let before = current();
        assert_eq!(with_tier(Tier::Baseline, current), Ok(Tier::Baseline));
        assert_eq!(current(), before);
    }
}
