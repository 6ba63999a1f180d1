//! Threads by number, and which of them a forked child has.
//!
//! A forked child inherits what other threads of its parent were in the middle of, but not those
//! threads: it has the one that forked, and those that it starts itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// The number that the next thread gets; none is 0, and none comes twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The first number that this process has given itself.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// The thread that forked to make this process.
static SURVIVOR: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// The number of the calling thread, never 0.
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

/// Whether a thread that had this number when it was stored belongs to this process.
pub(crate) fn is_here(thread: u64) -> bool {
    thread >= FIRST.load(Ordering::Relaxed) || thread == SURVIVOR.load(Ordering::Relaxed)
}

#[cfg(unix)]
extern "C" fn in_child() {
    SURVIVOR.store(OWN.get(), Ordering::Relaxed);
    FIRST.store(NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Takes note of forks from now on. A system call per call of the library would tell them, too, at
/// a fifth of the cost of a small step.
#[cfg(unix)]
pub(crate) fn watch_forks() -> PyResult<()> {
    // SAFETY: the handler lives as long as the process, as Python unloads no extension; it only
    // loads and stores words, which a child may do between fork and exec.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(PyOSError::new_err((error, "pthread_atfork"))),
    }
}

/// No process forks here.
#[cfg(not(unix))]
pub(crate) fn watch_forks() -> PyResult<()> {
    Ok(())
}
