//! The thread pool: one of our own, built at first need, rebuilt in a forked child.
//!
//! A driver cuts its work into chunks by size alone and calls [`run`]; which thread takes which
//! chunk never enters a result. The caller takes chunks from the same counter as the workers, so
//! that a worker that is slow to wake costs nothing but its help.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::Thread;

use rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuilder};

/// The variable with the number of threads.
pub const VARIABLE: &str = "FASTOPTIM_NUM_THREADS";

/// The most threads that can be asked for.
pub const MOST: usize = 1024;

/// Elements per chunk of parallel work: the four arrays of an `f32` AdamW then take 256 KiB, a
/// share of an L2 cache, and taking a chunk from the counter costs under 1% of working on it. Under
/// Miri, which is some 1000 times slower, small arrays have several.
pub(crate) const CHUNK: usize = if cfg!(miri) { 256 } else { 16 * 1024 };

/// Below this much work, in elements of an AdamW step, a worker is not worth waking. Two cores of
/// Zen 5 in a virtual machine, where a sleeping worker takes 50 us to run: at 64 Ki serial 11.8 us
/// and parallel 12.0 (calls 2 ms apart: 15.5 and 14.0), at 1 Mi 193 and 104.
const SERIAL_BELOW: usize = if cfg!(miri) { CHUNK } else { 64 * 1024 };

/// The stack of a worker, whatever `RUST_MIN_STACK` says. Kernels make do with 32 KiB, since a caller
/// may have no more; the rest is for builds without optimization and for what a panic prints. Pages
/// that are not touched take no memory.
const STACK: usize = 512 * 1024;

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

/// The number in the environment, or all processors that the process may use: affinity masks and
/// cgroup quotas are respected. Invalid values are ignored.
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
/// whole in elements of an AdamW step, is worth it. It may be called from within `f`.
pub fn run(chunks: usize, elements: usize, f: impl Fn(usize) + Sync) {
    let count = count();
    let helpers = count.min(chunks).saturating_sub(1);
    if helpers == 0 || elements < SERIAL_BELOW {
        for chunk in 0..chunks {
            f(chunk);
        }
    } else {
        share(chunks, count, helpers, &f);
    }
}

/// Calls `f` once with every chunk of arrays of these lengths, as [`run`] does with every index: whose
/// it is, and its elements. `share` is what an element costs, in elements of an AdamW step.
pub(crate) fn for_ranges(
    lengths: impl IntoIterator<Item = usize>,
    share: f64,
    f: impl Fn(usize, Range<usize>) + Sync,
) {
    let mut chunks = Vec::new();
    let mut elements = 0;
    for (owner, length) in lengths.into_iter().enumerate() {
        elements += length;
        let starts = (0..length).step_by(CHUNK);
        chunks.extend(starts.map(|from| (owner, from..length.min(from + CHUNK))));
    }
    run(chunks.len(), (elements as f64 * share) as usize, |index| {
        let (owner, range) = &chunks[index];
        f(*owner, range.clone());
    });
}

/// A slice whose parts go to different threads.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow; who makes a slice of it answers for that.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            memory: PhantomData,
        }
    }

    /// The elements of `from..to`.
    ///
    /// # Safety
    /// Nobody else has any of them while the result lives.
    #[expect(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice_mut(&self, from: usize, to: usize) -> &mut [T] {
        assert!(from <= to && to <= self.len);
        // SAFETY: inside the borrow; the caller has the elements alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(from), to - from) }
    }
}

/// Calls `f` with every chunk of `size` elements, and where it starts.
pub(crate) fn for_chunks<T: Send>(
    slice: &mut [T],
    size: usize,
    elements: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let n = slice.len();
    let size = size.max(1);
    let shared = Shared::new(slice);
    run(n.div_ceil(size), elements, |chunk| {
        let from = chunk * size;
        // SAFETY: chunks do not overlap, and each comes once.
        f(from, unsafe { shared.slice_mut(from, n.min(from + size)) });
    });
}

/// Calls `f` with every part `from..to`, and where it starts. The parts are in order.
pub(crate) fn for_parts<T: Send>(
    slice: &mut [T],
    parts: &[(usize, usize)],
    elements: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    assert!(parts.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let shared = Shared::new(slice);
    run(parts.len(), elements, |index| {
        let (from, to) = parts[index];
        // SAFETY: parts do not overlap, and each comes once.
        f(from, unsafe { shared.slice_mut(from, to) });
    });
}

/// Set in [`Job::state`] once the caller has seen the last chunk taken.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// One call of [`run`]. Workers that wake before it is closed take chunks from it; one that wakes
/// later leaves it alone, so the caller never waits for a worker that sleeps.
struct Job {
    /// The number of workers inside, and [`CLOSED`].
    state: AtomicUsize,
    next: AtomicUsize,
    chunks: usize,
    /// The thread count of the caller, for calls from within `f`.
    count: usize,
    f: &'static (dyn Fn(usize) + Sync),
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job {
    fn work(&self) {
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            if chunk >= self.chunks {
                break;
            }
            (self.f)(chunk);
        }
    }

    /// The body of a worker.
    fn help(&self) {
        let enter = |state| (state & CLOSED == 0).then_some(state + 1);
        let entered = self
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
        if entered.is_err() {
            return;
        }
        let work = || with_threads(self.count, || self.work());
        if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
            // No further chunk is begun.
            self.next.store(self.chunks, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
        if self.state.fetch_sub(1, Ordering::Release) == CLOSED + 1 {
            self.caller.unpark();
        }
    }

    /// Lets no more workers in and waits for those inside.
    fn close(&self) {
        // A worker inside is within its last chunk, some microseconds from its end.
        const SPINS: usize = if cfg!(miri) { 1 } else { 2000 };
        self.state.fetch_or(CLOSED, Ordering::Relaxed);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) != CLOSED {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
    }
}

fn share(chunks: usize, count: usize, helpers: usize, f: &(dyn Fn(usize) + Sync)) {
    struct Close<'a>(&'a Job);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let job = Arc::new(Job {
        state: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        chunks,
        count,
        // SAFETY: only the lifetime changes. `f` is called between entering an open job and leaving
        // it, and `Close` lets this function return, or unwind, only when nobody is inside and
        // nobody can enter any more.
        f: unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f)
        },
        caller: std::thread::current(),
        panic: Mutex::new(None),
    });
    #[cfg(not(miri))]
    {
        let pools = pools(helpers);
        let close = Close(&job);
        let workers = pools
            .iter()
            .flat_map(|pool| std::iter::repeat_n(pool, pool.current_num_threads()));
        for pool in workers.take(helpers) {
            let job = Arc::clone(&job);
            pool.spawn(move || job.help());
        }
        close.0.work();
    }
    // Under Miri the threads are plain ones, which do the same: the pool's queues (crossbeam-epoch)
    // break the rules of Stacked Borrows, and its threads never end, which Miri takes for a fault.
    #[cfg(miri)]
    std::thread::scope(|scope| {
        let close = Close(&job);
        for _ in 0..helpers {
            scope.spawn(|| job.help());
        }
        close.0.work();
    });
    let panic = job
        .panic
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}

/// The state of one process: a forked child inherits the memory but not the threads, nor can it
/// trust a lock that another thread may have held.
struct Process {
    id: u32,
    workers: Mutex<Workers>,
}

/// The threads that there are. They are added to, and stay until the process ends.
#[derive(Default)]
struct Workers {
    pools: Vec<Arc<ThreadPool>>,
    /// For how many calls the system is not asked for more, and for how many after its last refusal.
    wait: usize,
    pause: usize,
}

impl Workers {
    /// The longest pause, so that threads that may be started again are found.
    const LONGEST: usize = 4096;

    fn count(&self) -> usize {
        self.pools
            .iter()
            .map(|pool| pool.current_num_threads())
            .sum()
    }

    /// At least `wanted` threads, or fewer where the system has no more of them, or none. `start` is
    /// given the range of their numbers that are missing.
    fn pools(
        &mut self,
        wanted: usize,
        start: impl FnOnce(Range<usize>) -> Option<ThreadPool>,
    ) -> Vec<Arc<ThreadPool>> {
        let have = self.count();
        if have < wanted && self.wait > 0 {
            self.wait -= 1;
        } else if have < wanted {
            self.pools.extend(start(have..wanted).map(Arc::new));
            self.pause = if self.count() < wanted {
                (2 * self.pause).clamp(1, Self::LONGEST)
            } else {
                0
            };
            self.wait = self.pause;
        }
        self.pools.clone()
    }
}

/// A pool of threads with these numbers, or of as many of them as the system starts.
fn start(numbers: Range<usize>) -> Option<ThreadPool> {
    // Rayon ends all threads of a pool of which one does not start, so they start without one.
    let mut started = Vec::with_capacity(numbers.len());
    for number in numbers {
        let (sender, receiver) = mpsc::channel::<ThreadBuilder>();
        let thread = std::thread::Builder::new()
            .name(format!("fastoptim-{number}"))
            .stack_size(STACK)
            .spawn(move || receiver.recv().into_iter().for_each(ThreadBuilder::run));
        if thread.is_err() {
            break;
        }
        started.push(sender);
    }
    if started.is_empty() {
        return None; // 0 threads would be as many as there are processors
    }
    ThreadPoolBuilder::new()
        .num_threads(started.len())
        .spawn_handler(|thread| {
            let sent = started[thread.index()].send(thread);
            sent.map_err(|_| std::io::Error::other("the thread has ended"))
        })
        .build()
        .ok()
}

/// At least `wanted` threads, or fewer where the system has no more of them, or none.
#[cfg_attr(miri, expect(dead_code))]
fn pools(wanted: usize) -> Vec<Arc<ThreadPool>> {
    // A poisoned lock only says that starting threads panicked: those that are there work.
    let mut workers = process()
        .workers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    workers.pools(wanted, start)
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
        workers: Mutex::default(),
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
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        let most = if cfg!(miri) { 4 } else { 64 };
        let chunks = if cfg!(miri) { 20 } else { 1000 };
        for threads in [1, 2, 3, most] {
            let hits: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            with_threads(threads, || {
                run(hits.len(), usize::MAX, |chunk| {
                    hits[chunk].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn calls_may_nest() {
        let sum = AtomicUsize::new(0);
        with_threads(3, || {
            run(10, usize::MAX, |_| {
                assert_eq!(count(), 3);
                run(10, usize::MAX, |j| {
                    sum.fetch_add(j, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(sum.into_inner(), 450);
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_have_stopped() {
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            let hits = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                with_threads(3, || {
                    run(64, usize::MAX, |chunk| {
                        hits.fetch_add(1, Ordering::Relaxed);
                        assert_ne!(chunk, 40, "as it should");
                    });
                });
            }));
            assert!(outcome.is_err());
            assert!(hits.into_inner() > 40);
        }
    }

    #[test]
    fn a_closed_job_lets_nobody_in() {
        let hits = AtomicUsize::new(0);
        // The caller of a job that panicked leaves chunks behind, and what `f` borrows is gone.
        let f = |_| {
            hits.fetch_add(1, Ordering::Relaxed);
        };
        let f: &(dyn Fn(usize) + Sync) = &f;
        let job = Job {
            state: AtomicUsize::new(CLOSED),
            next: AtomicUsize::new(0),
            chunks: 3,
            count: 2,
            // SAFETY: `job` does not outlive `f`.
            f: unsafe { std::mem::transmute::<&_, &'static (dyn Fn(usize) + Sync)>(f) },
            caller: std::thread::current(),
            panic: Mutex::new(None),
        };
        job.help();
        assert_eq!(job.state.load(Ordering::Relaxed), CLOSED);
        assert_eq!(hits.load(Ordering::Relaxed), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many calls of safe code")]
    fn the_system_is_asked_for_threads_less_and_less_often() {
        let (mut workers, mut asked) = (Workers::default(), 0);
        for _ in 0..100_000 {
            let pools = workers.pools(2, |missing| {
                assert_eq!(missing, 0..2);
                asked += 1;
                None
            });
            assert!(pools.is_empty());
        }
        let rarest = 100_000 / Workers::LONGEST;
        assert!((rarest..=rarest + 12).contains(&asked), "{asked}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "there is no pool")]
    fn threads_are_added_to_those_there_are() {
        let mut workers = Workers::default();
        workers.pools(3, |_| start(0..1));
        assert_eq!(workers.count(), 1);
        workers.pools(3, |_| panic!("a call goes by"));
        workers.pools(1, |_| panic!("there are enough"));
        workers.pools(3, start);
        assert_eq!(workers.count(), 3);
        workers.pools(4, start);
        assert_eq!(workers.count(), 4);
        // All of them are there at once.
        let all = Arc::new(Barrier::new(4 + 1));
        for pool in &workers.pools {
            pool.spawn_broadcast({
                let all = Arc::clone(&all);
                move |_| {
                    all.wait();
                }
            });
        }
        all.wait();
    }

    #[test]
    fn counts_are_parsed() {
        assert_eq!(parse(" 3 "), Some(3));
        for invalid in ["", "0", "-1", "two", "1.5", "1000000"] {
            assert_eq!(parse(invalid), None);
        }
    }
}
