//! The floating-point environment of kernels.
//!
//! Rounding and subnormal numbers depend on a register of each thread. A library built with
//! `-ffast-math`, or `torch.set_flush_denormal(True)`, makes the processor treat subnormal numbers
//! as zeros in the thread that loads or calls it, and in threads that this one starts later. If
//! kernels did not set the register, results would depend on which thread runs them.

/// Calls `f` with rounding to nearest and subnormal numbers, then restores the environment of the
/// calling thread. This costs a few nanoseconds.
///
/// What runs in the [pool](super::pool) does it itself. Callers do it for the constants of a step,
/// and for what they compute from results.
pub fn standard<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(control::Register);
    impl Drop for Restore {
        fn drop(&mut self) {
            control::set(self.0);
        }
    }
    let caller = control::get();
    let _restore = (!control::is_standard(caller)).then(|| {
        control::set(control::STANDARD);
        Restore(caller)
    });
    call(f)
}

/// Calls `f`. The compiler moves arithmetic across the instructions of `control`, but not into or out
/// of a function that it must not inline.
#[inline(never)]
fn call<T>(f: impl FnOnce() -> T) -> T {
    f()
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod control {
    use std::arch::asm;

    pub(super) type Register = u32;

    /// All exceptions are masked.
    pub(super) const STANDARD: Register = 0x1F80;

    /// The exceptions that have occurred, which do not affect results.
    const OCCURRED: Register = 0x3F;

    pub(super) fn is_standard(register: Register) -> bool {
        register & !OCCURRED == STANDARD
    }

    pub(super) fn get() -> Register {
        let mut register = 0;
        // SAFETY: the instruction writes four bytes to `register`.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut register, options(nostack, preserves_flags));
        }
        register
    }

    pub(super) fn set(register: Register) {
        // SAFETY: the value is the standard one, which compiled code requires, or that of the
        // calling thread, which `standard` restores.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const register, options(nostack));
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod control {
    use std::arch::asm;

    pub(super) type Register = u64;

    pub(super) const STANDARD: Register = 0;

    pub(super) fn is_standard(register: Register) -> bool {
        register == STANDARD
    }

    pub(super) fn get() -> Register {
        let register;
        // SAFETY: the instruction reads the register FPCR, which every program may.
        unsafe { asm!("mrs {}, fpcr", out(reg) register, options(nostack, preserves_flags)) };
        register
    }

    pub(super) fn set(register: Register) {
        // SAFETY: the value is the standard one, which compiled code requires, or that of the
        // calling thread, which `standard` restores.
        unsafe { asm!("msr fpcr, {}", in(reg) register, options(nostack, preserves_flags)) };
    }
}

/// Other processors, and Miri, have no such register or none that is known here.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod control {
    pub(super) type Register = ();

    pub(super) const STANDARD: Register = ();

    pub(super) fn is_standard((): Register) -> bool {
        true
    }

    pub(super) fn get() -> Register {}

    pub(super) fn set((): Register) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::exec::pool::{run, with_threads};

    /// Subnormal numbers are zeros.
    const FLUSH: control::Register = if cfg!(target_arch = "x86_64") {
        control::STANDARD | 0x8040
    } else {
        1 << 24
    };

    fn half_of_the_smallest() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn kernels_have_the_standard_environment_and_callers_keep_theirs() {
        // A thread of its own, as the environment is kept until it ends.
        std::thread::spawn(|| {
            control::set(FLUSH);
            assert_eq!(half_of_the_smallest(), 0.0);
            // Threads that start in `run` inherit the environment of this one.
            for (threads, elements) in [(1, 0), (2, usize::MAX), (7, usize::MAX)] {
                with_threads(threads, || {
                    run(100, elements, |_| assert!(half_of_the_smallest() > 0.0));
                });
            }
            assert_eq!(half_of_the_smallest(), 0.0);
        })
        .join()
        .expect("the same environment in all threads");
    }
}
