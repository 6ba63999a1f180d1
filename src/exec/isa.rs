//! Instruction sets: the one place that knows them.
//!
//! A [`Kernel`] is a plain loop. [`Tier::run`] calls it through a trampoline that was compiled for
//! one instruction set, and because a kernel's `run` is `#[inline(always)]` the loop is compiled
//! again for each of them. Rust neither contracts `a * b + c` nor reorders floating-point
//! operations, so all tiers give the same bits; they differ in speed alone.
//!
//! The environment variable `FASTOPTIM_ISA` forces a tier for the process, [`with_tier`] for one
//! call.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// A loop to be compiled for every tier.
///
/// It is a struct and not a closure because closures do not inherit the target features of the
/// function they are written in. `run` must be `#[inline(always)]`, and so must everything it calls
/// per element; iterator adaptors such as `for_each` put a library function in between, so write
/// `for`.
pub trait Kernel {
    /// The result of the loop.
    type Output;
    /// The loop.
    fn run(self) -> Self::Output;
}

/// Evidence that this processor has an instruction set. Only the check in this module makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(());

/// One instruction set of this processor that kernels are compiled for.
///
/// [`Tier::supported`] and parsing a name check the processor, and there is no other way to a tier
/// beyond the baseline:
///
/// ```
/// use fastoptim::exec::isa::Tier;
///
/// assert_eq!("baseline".parse(), Ok(Tier::Baseline));
/// let fastest = *Tier::supported().last().expect("the baseline at least");
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

/// All tiers, slowest first, whether this processor has them or not. They stay in this module.
const ALL: [Tier; 4] = [
    Tier::Baseline,
    Tier::Avx2(Checked(())),
    Tier::Avx512(Checked(())),
    Tier::Neon(Checked(())),
];

impl Tier {
    /// The name that `FASTOPTIM_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2(_) => "avx2",
            Self::Avx512(_) => "avx512",
            Self::Neon(_) => "neon",
        }
    }

    /// Whether this processor has it: the check that stands behind every [`Checked`].
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

    /// Runs a kernel as it was compiled for this tier.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX2, FMA, F16C, BMI1 and BMI2: no `Avx2(Checked)` leaves
            // this module unless `is_supported` has found them.
            Self::Avx2(_) => unsafe { avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the features of `avx512`: no `Avx512(Checked)` leaves this
            // module unless `is_supported` has found them.
            Self::Avx512(_) => unsafe { avx512(kernel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the processor has Advanced SIMD: no `Neon(Checked)` leaves this module unless
            // `is_supported` has found it.
            Self::Neon(_) => unsafe { neon(kernel) },
            _ => kernel.run(),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

impl Tier {
    /// The tiers of this processor, slowest first.
    pub fn supported() -> Vec<Self> {
        ALL.into_iter().filter(|tier| tier.is_supported()).collect()
    }
}

impl FromStr for Tier {
    type Err = Error;

    /// The tier of this name, if this processor has it.
    fn from_str(name: &str) -> Result<Self> {
        match ALL.into_iter().find(|tier| tier.name() == name) {
            Some(tier) if tier.is_supported() => Ok(tier),
            Some(tier) => Err(Error::Value(format!("this processor has no {tier}"))),
            None => {
                let names = ALL.map(Self::name).join(", ");
                Err(Error::Value(format!(
                    "unknown instruction set {name:?}; one of {names} is expected"
                )))
            }
        }
    }
}

/// Asks for the cache line at an address, which may be any: nothing is read. A no-op where there is
/// no such instruction.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is in the baseline, and a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The variable that forces a tier for the whole process.
pub const VARIABLE: &str = "FASTOPTIM_ISA";

static CHOSEN: OnceLock<Tier> = OnceLock::new();

thread_local! {
    static FORCED: Cell<Option<Tier>> = const { Cell::new(None) };
}

/// Chooses the tier of the process: `FASTOPTIM_ISA`, or else the best that the processor has.
///
/// # Errors
/// The variable names an unknown or unsupported tier. Nothing is chosen then.
pub fn choose() -> Result<Tier> {
    if let Some(&tier) = CHOSEN.get() {
        return Ok(tier);
    }
    let tier = match std::env::var_os(VARIABLE) {
        // A value that is not Unicode is not a name either; the error replaces what it cannot show.
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

/// The tier in force in this thread. Drivers ask once, in the thread that called them, and hand the
/// answer to their tasks.
///
/// # Panics
/// `FASTOPTIM_ISA` names no tier of this processor. [`choose`] returns that as an error.
#[inline]
pub fn current() -> Tier {
    FORCED.get().unwrap_or_else(|| match CHOSEN.get() {
        Some(&tier) => tier,
        None => choose().unwrap_or_else(|error| panic!("{error}")),
    })
}

/// Calls `f` with all kernels that this thread starts on one tier.
///
/// # Errors
/// This processor lacks the tier.
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
    fn a_name_is_a_tier_where_the_processor_has_it() {
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
    fn a_forced_tier_ends_with_its_call() {
        let before = current();
        assert_eq!(with_tier(Tier::Baseline, current), Ok(Tier::Baseline));
        assert_eq!(current(), before);
    }
}
