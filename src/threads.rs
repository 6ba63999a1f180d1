//! The thread pool: one of our own, built at first need, rebuilt in a forked child.
//!
//! A driver cuts its work into chunks by size alone and calls [`run`]; which thread takes which
//! chunk never enters a result. The caller takes chunks from the same counter as the workers, so
//! that a worker that is slow to wake costs nothing but its help.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The variable with the number of threads.
pub const VARIABLE: &str = "FASTOPTIM_NUM_THREADS";

/// The most threads that can be asked for.
pub const MOST: usize = 1024;

/// Below this much work, in elements of an AdamW step, waking a worker costs more than it saves.
const SERIAL_BELOW: usize = 96 * 1024;

static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN_COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The number of threads that this thread's calls use, itself included.
pub fn count() -> usize {
    match (OWN_COUNT.get(), COUNT.load(Ordering::Relaxed)) {
        (0, 0) => default_count(),
        (0, n) | (n, _) => n,
    }
}

/// What the environment asks for, or all processors that the process may use: affinity masks and
/// cgroup quotas are respected. Nonsense in the environment is passed over.
pub fn default_count() -> usize {
    static DEFAULT: OnceLock<usize> = OnceLock::new();
    *DEFAULT.get_or_init(|| {
        let asked = std::env::var(VARIABLE).ok().and_then(|text| parse(&text));
        asked.unwrap_or_else(|| {
            std::thread::available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .min(MOST)
        })
    })
}

/// A thread count as the environment writes it, if it is one.
pub fn parse(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|n| (1..=MOST).contains(n))
}

/// Sets the number of threads of the process.
///
/// # Panics
/// `n` is outside `1..=MOST`.
pub fn set_count(n: usize) {
    assert!((1..=MOST).contains(&n), "between 1 and {MOST} threads");
    COUNT.store(n, Ordering::Relaxed);
}

/// Sets the number of threads of this thread's calls alone (0: as the process), and returns what
/// was set before.
///
/// # Panics
/// `n` is above `MOST`.
pub fn set_own_count(n: usize) -> usize {
    assert!(n <= MOST, "at most {MOST} threads");
    OWN_COUNT.replace(n)
}

/// Calls `f` with `n` threads for what this thread starts.
pub fn with_threads<T>(n: usize, f: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            OWN_COUNT.set(self.0);
        }
    }
    let _restore = Restore(set_own_count(n));
    f()
}

/// Calls `f` once with every index below `chunks`, in parallel where `elements`, the size of the
/// whole in elements of an AdamW step, is worth it.
pub fn run(chunks: usize, elements: usize, f: impl Fn(usize) + Sync) {
    let threads = count().min(chunks);
    if threads <= 1 || elements < SERIAL_BELOW {
        for chunk in 0..chunks {
            f(chunk);
        }
        return;
    }
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            if chunk >= chunks {
                break;
            }
            f(chunk);
        }
    };
    pool(threads - 1).in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| take());
        }
        take();
    });
}

/// What belongs to one process: a forked child inherits the memory but not the threads, nor can it
/// trust a lock that another thread may have held.
struct Process {
    id: u32,
    pool: Mutex<Option<Arc<ThreadPool>>>,
}

/// A pool of at least `workers` threads.
fn pool(workers: usize) -> Arc<ThreadPool> {
    // A poisoned lock only says that building a pool panicked: there is then no pool in it.
    let mut slot = process()
        .pool
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match &*slot {
        Some(pool) if pool.current_num_threads() >= workers => Arc::clone(pool),
        _ => {
            let pool = ThreadPoolBuilder::new()
                .num_threads(workers)
                .thread_name(|index| format!("fastoptim-{index}"))
                .build()
                .expect("the system starts threads");
            Arc::clone(slot.insert(Arc::new(pool)))
        }
    }
}

fn process() -> &'static Process {
    static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());
    let id = std::process::id();
    let known = PROCESS.load(Ordering::Acquire);
    // SAFETY: null or from `Box::into_raw` below, and never freed.
    if let Some(process) = unsafe { known.as_ref() }
        && process.id == id
    {
        return process;
    }
    // The parent's is left as it is: dropping it would wait for threads that do not exist here.
    let fresh = Box::into_raw(Box::new(Process {
        id,
        pool: Mutex::new(None),
    }));
    match PROCESS.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just leaked.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: nobody else has seen `fresh`; `other` was put there by a thread of this process.
            unsafe {
                drop(Box::from_raw(fresh));
                &*other
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        for threads in [1, 2, 3, 64] {
            let hits: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            with_threads(threads, || {
                run(hits.len(), usize::MAX, |chunk| {
                    hits[chunk].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn counts_are_parsed() {
        assert_eq!(parse(" 3 "), Some(3));
        for nonsense in ["", "0", "-1", "two", "1.5", "1000000"] {
            assert_eq!(parse(nonsense), None);
        }
    }
}
