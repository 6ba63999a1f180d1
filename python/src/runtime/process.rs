//! Numbers of threads, and which of these threads exist in this process.
//!
//! A forked child inherits the memory of its parent in the middle of the calls of other threads,
//! but not these threads. It has only the thread that forked and those that it starts itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// The number of the next thread. Numbers are never 0 and never reused.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The first number assigned by this process after its last fork.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// The number of the thread that forked this process.
static SURVIVOR: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of the calling thread, which is never 0.
pub(crate) fn thread() -> u64 {
    match OWN.get() {
        0 => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            OWN.set(number);
            number
        }
        number => number,
    }
}

/// Returns whether the thread with this number belongs to this process and not only to a parent.
pub(crate) fn is_here(thread: u64) -> bool {
    thread >= FIRST.load(Ordering::Relaxed) || thread == SURVIVOR.load(Ordering::Relaxed)
}

#[cfg(unix)]
extern "C" fn in_child() {
    SURVIVOR.store(OWN.get(), Ordering::Relaxed);
    FIRST.store(NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Installs a handler that detects forks. The alternative, asking for the process id in every call,
/// costs a fifth of a small step.
#[cfg(unix)]
pub(crate) fn watch_forks() -> PyResult<()> {
    // SAFETY: the handler stays valid, because Python does not unload extension modules. It only
    // loads and stores words, which is allowed in a child between fork and exec.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(PyOSError::new_err((error, "pthread_atfork"))),
    }
}

/// Does nothing, because this system has no fork.
#[cfg(not(unix))]
pub(crate) fn watch_forks() -> PyResult<()> {
    Ok(())
}
