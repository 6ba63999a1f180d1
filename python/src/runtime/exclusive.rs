//! A value that only one call at a time can use, in the presence of threads and forks.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::process;

/// The owner of a value that is not in use.
const NOBODY: u64 = 0;

/// A value, and the number of the thread whose call uses it.
pub(crate) struct Exclusive<T> {
    owner: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: only `Held` gives access to the value, and only one exists at a time. Therefore only one
// thread at a time uses the value, for which `T: Send` suffices.
unsafe impl<T: Send> Sync for Exclusive<T> {}

/// The call that is using the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// A call further up on the stack of this thread.
    SameThread,
    /// A call of another thread of this process.
    OtherThread,
}

impl<T> Exclusive<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            owner: AtomicU64::new(NOBODY),
            value: UnsafeCell::new(value),
        }
    }

    /// Locks the value for this call. It never waits. In a forked child, a call of another thread
    /// of the parent does not count, because that thread does not exist in the child.
    pub(crate) fn lock(&self) -> Result<Held<'_, T>, Busy> {
        let thread = process::thread();
        let mut owner = self.owner.load(Ordering::Relaxed);
        loop {
            if owner == thread {
                return Err(Busy::SameThread);
            }
            if owner != NOBODY && process::is_here(owner) {
                return Err(Busy::OtherThread);
            }
            match self.owner.compare_exchange_weak(
                owner,
                thread,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Held(self)),
                Err(now) => owner = now,
            }
        }
    }
}

/// Exclusive access to the value until this is dropped.
pub(crate) struct Held<'a, T>(&'a Exclusive<T>);

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: while this exists, `owner` is its thread, so `lock` does not return another one.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the borrow of `self` is exclusive.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.owner.store(NOBODY, Ordering::Release);
    }
}
