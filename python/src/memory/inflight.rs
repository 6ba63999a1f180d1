//! The memory used by calls of this process, including calls that have released the interpreter.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::runtime::process;

/// The interval at which a waiting call checks again.
pub(crate) const POLL: Duration = Duration::from_micros(100);

/// Ranges of addresses, in any order.
pub(crate) type Ranges = Arc<[Range<usize>]>;

/// The ranges that a call writes, which an optimizer reuses, and those that it reads.
pub(crate) type Accessed = (Ranges, Vec<Range<usize>>);

struct Call {
    id: u64,
    /// The number of the calling thread.
    thread: u64,
    written: Ranges,
    read: Vec<Range<usize>>,
}

struct Table {
    next: u64,
    calls: Vec<Call>,
}

impl Table {
    fn add(&mut self, written: Ranges, read: Vec<Range<usize>>) -> Guard {
        self.next += 1;
        self.calls.push(Call {
            id: self.next,
            thread: process::thread(),
            written,
            read,
        });
        Guard(self.next)
    }
}

/// The lock is held only by a thread attached to the interpreter, and with the GIL, which the
/// module requires, only one thread is attached. Therefore the lock is free at a fork, and in the
/// child.
static TABLE: Mutex<Table> = Mutex::new(Table {
    next: 0,
    calls: Vec::new(),
});

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether any range of `a` overlaps any range of `b`.
fn meet(a: &[Range<usize>], b: &[Range<usize>]) -> bool {
    let sorted = |ranges: &[Range<usize>]| {
        let mut ranges: Vec<_> = ranges.iter().filter(|r| !r.is_empty()).cloned().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    };
    let (a, b) = (sorted(a), sorted(b));
    let (mut i, mut j) = (0, 0);
    // The largest end so far in `a` and in `b`: ranges of the same side may overlap.
    let (mut a_end, mut b_end) = (0, 0);
    while i < a.len() || j < b.len() {
        let a_first = j == b.len() || (i < a.len() && a[i].start <= b[j].start);
        if a_first {
            if a[i].start < b_end {
                return true;
            }
            a_end = a_end.max(a[i].end);
            i += 1;
        } else {
            if b[j].start < a_end {
                return true;
            }
            b_end = b_end.max(b[j].end);
            j += 1;
        }
    }
    false
}

/// A registration, which ends when the guard is dropped.
pub(crate) struct Guard(u64);

/// Registers the memory of a call. Several calls may read the same memory, but only one may write
/// it, and only if no other call reads it.
pub(crate) fn enter(written: Vec<Range<usize>>, read: Vec<Range<usize>>) -> PyResult<Guard> {
    register(written.into(), read)
}

/// Registers a call like [`enter`], with written ranges that the caller reuses.
pub(crate) fn register(written: Ranges, read: Vec<Range<usize>>) -> PyResult<Guard> {
    let mut table = table();
    // In a forked child, calls of other threads of the parent do not exist.
    table.calls.retain(|call| process::is_here(call.thread));
    for call in &table.calls {
        if meet(&written, &call.written) || meet(&written, &call.read) || meet(&read, &call.written)
        {
            return Err(PyRuntimeError::new_err(
                "another thread is in a call that uses the same memory",
            ));
        }
    }
    Ok(table.add(written, read))
}

/// Registers a call that reads, and waits for calls that write the same memory. The registration
/// rejects new calls from the beginning, so the wait ends even if another thread steps repeatedly.
pub(crate) fn wait_to_read(py: Python<'_>, read: Vec<Range<usize>>) -> PyResult<Guard> {
    let nothing: Ranges = Vec::new().into();
    let guard = table().add(nothing, read.clone());
    let waits = |call: &Call| call.id < guard.0 && meet(&read, &call.written);
    loop {
        let mut table = table();
        table.calls.retain(|call| process::is_here(call.thread));
        let mut found = table.calls.iter().filter(|call| waits(call));
        if found.any(|call| call.thread == process::thread()) {
            return Err(PyRuntimeError::new_err(
                "this thread is in a call that writes the same memory",
            ));
        }
        if !table.calls.iter().any(waits) {
            return Ok(guard);
        }
        drop(table);
        py.check_signals()?;
        py.detach(|| thread::sleep(POLL));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        table().calls.retain(|call| call.id != self.0);
    }
}
