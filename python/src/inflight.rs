//! The memory that calls of this process are working on while the interpreter is released.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

struct Call {
    id: u64,
    written: Vec<Range<usize>>,
    read: Vec<Range<usize>>,
}

struct Table {
    process: u32,
    next: u64,
    calls: Vec<Call>,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    process: 0,
    next: 0,
    calls: Vec::new(),
});

/// The table. The lock is only ever held with the interpreter attached and for a few instructions,
/// so a forked child (which forks with the interpreter attached) never inherits it locked.
fn table() -> MutexGuard<'static, Table> {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    if table.process != std::process::id() {
        table.process = std::process::id();
        // The parent's calls do not run here.
        table.calls.clear();
    }
    table
}

fn meet(a: &[Range<usize>], b: &[Range<usize>]) -> bool {
    a.iter()
        .any(|x| b.iter().any(|y| x.start < y.end && y.start < x.end))
}

/// Keeps its memory registered until it is dropped.
pub(crate) struct Guard(u64);

/// Registers a call: readers share, a writer is alone.
pub(crate) fn enter(written: Vec<Range<usize>>, read: Vec<Range<usize>>) -> PyResult<Guard> {
    let mut table = table();
    for call in &table.calls {
        if meet(&written, &call.written) || meet(&written, &call.read) || meet(&read, &call.written)
        {
            return Err(PyRuntimeError::new_err(
                "another thread is in a call that works on the same memory",
            ));
        }
    }
    table.next += 1;
    let id = table.next;
    table.calls.push(Call { id, written, read });
    Ok(Guard(id))
}

impl Drop for Guard {
    fn drop(&mut self) {
        table().calls.retain(|call| call.id != self.0);
    }
}
