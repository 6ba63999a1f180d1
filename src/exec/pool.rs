//! The thread pool of the process. It is created on first use, and again in a forked child.
//!
//! A driver divides its work into chunks whose size does not depend on the number of threads and
//! calls [`run`]. Results do not depend on which thread processes which chunk. Each thread first
//! processes the chunks of a contiguous part, the same part in each call while the number of threads
//! stays the same, and then those that are left in other parts, so a worker that wakes up late does
//! not delay the call.
//!
//! While the threads of another library wait awake for the caller, they take the place of the
//! workers ([`openmp`](super::openmp)), and the caller waits for all of them.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuilder, Yield};

use crate::exec::environment;
use crate::exec::openmp::Team;
use crate::exec::placement::{Placement, Worker};

/// The environment variable that sets the number of threads.
pub const VARIABLE: &str = "FASTOPTIM_NUM_THREADS";

/// The maximum number of threads.
pub const MOST: usize = 1024;

/// Elements per chunk of parallel work. The four arrays of an `f32` AdamW then take 256 KiB, a
/// share of an L2 cache, and taking a chunk from a counter costs less than 1% of the work on it.
/// Smaller under Miri, which is about 1000 times slower, so that small arrays have several chunks.
pub(crate) const CHUNK: usize = if cfg!(miri) { 256 } else { 16 * 1024 };

/// Work below this size, in elements of an AdamW step, runs on the calling thread: 25 us with 64 Ki
/// elements (Zen 3, AVX2).
const SERIAL_BELOW: usize = if cfg!(miri) { CHUNK } else { 64 * 1024 };

/// Work below this size does not wake sleeping workers, unless calls follow each other closely. With
/// two cores of Zen 3 in a virtual machine and calls 0.2 ms apart, AdamW took 88 us with 64 Ki
/// elements by waking them and 55 without, with 256 Ki 167 and 154, and with 1 Mi 739 and 964. In
/// calls without a pause it takes 33, 101 and 411 us. Unit tests use several threads from
/// [`SERIAL_BELOW`] on.
const ASLEEP_BELOW: usize = if cfg!(any(miri, test)) {
    SERIAL_BELOW
} else {
    256 * 1024
};

/// The time for which a worker waits awake for its next job. A sleeping worker of a virtual machine
/// takes 40 to 80 us to wake up, and waking it costs the caller 10 to 20 us (two cores of Zen 3);
/// waiting as long as that at most doubles the cost in the worst case.
const LINGER: Duration = Duration::from_micros(if cfg!(miri) { 0 } else { 100 });

/// The stack size of a worker, independent of `RUST_MIN_STACK`. Kernels need at most 32 KiB, since
/// the caller's stack may be that small; the rest is for builds without optimization and for
/// printing a panic. Pages that are not touched take no memory.
const STACK: usize = 512 * 1024;

static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN_COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Returns the number of threads used by calls of this thread, including this thread.
pub fn count() -> usize {
    set_by_calls().unwrap_or_else(default_count)
}

/// The number of threads that calls have set for this thread, or else for the process.
fn set_by_calls() -> Option<usize> {
    let counts = [OWN_COUNT.get(), COUNT.load(Ordering::Relaxed)];
    counts.into_iter().find(|&count| count != 0)
}

/// The number of threads that the environment variable sets. Invalid values are ignored.
fn set_by_variable() -> Option<usize> {
    static SET: OnceLock<Option<usize>> = OnceLock::new();
    *SET.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|text| parse(&text)))
}

/// Returns the number of threads in the environment variable, or the number of processors available
/// to the process, which takes affinity masks and cgroup quotas into account. Invalid values of the
/// variable are ignored.
pub fn default_count() -> usize {
    static DEFAULT: OnceLock<usize> = OnceLock::new();
    *DEFAULT.get_or_init(|| {
        set_by_variable().unwrap_or_else(|| {
            std::thread::available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .min(MOST)
        })
    })
}

/// Parses the value of the environment variable. Returns `None` if it is not a valid number.
pub fn parse(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|n| (1..=MOST).contains(n))
}

/// Sets the number of threads of the process.
///
/// # Panics
/// `n` is outside `1..=MOST`.
pub fn set_count(n: usize) {
    assert!((1..=MOST).contains(&n), "n must be between 1 and {MOST}");
    COUNT.store(n, Ordering::Relaxed);
}

/// Sets the number of threads of the process, unless [`set_count`] or the environment variable has
/// set it. Returns whether it did.
///
/// # Panics
/// `n` is outside `1..=MOST`.
pub fn suggest_count(n: usize) -> bool {
    assert!((1..=MOST).contains(&n), "n must be between 1 and {MOST}");
    let (old, new) = (Ordering::Relaxed, Ordering::Relaxed);
    set_by_variable().is_none() && COUNT.compare_exchange(0, n, old, new).is_ok()
}

/// Sets the number of threads used by calls of this thread only (0: that of the process), and
/// returns the previous value.
///
/// # Panics
/// `n` is above `MOST`.
pub fn set_own_count(n: usize) -> usize {
    assert!(n <= MOST, "n must be at most {MOST}");
    OWN_COUNT.replace(n)
}

/// Calls `f` and uses `n` threads for all work that this thread starts in it.
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

/// Calls `f` once with every index below `chunks`, in parallel if `elements`, the total cost in
/// elements of an AdamW step, is large enough. Calls may be nested.
pub fn run(chunks: usize, elements: usize, f: impl Fn(usize) + Sync) {
    environment::standard(|| run_chunks(chunks, elements, &f));
}

/// [`run`] without its type parameter: `f` is compiled once, for serial and parallel calls.
fn run_chunks(chunks: usize, elements: usize, f: &(dyn Fn(usize) + Sync)) {
    let count = count();
    let serial = || (0..chunks).for_each(f);
    if count.min(chunks) < 2 || elements < SERIAL_BELOW {
        return serial();
    }
    let exact = set_by_calls().or_else(set_by_variable).is_some();
    let team = Team::awake(count, exact);
    let threads = team.as_ref().map_or(count, Team::threads).min(chunks);
    if team.is_some() || elements >= ASLEEP_BELOW || LAST_CALL.is_recent(LastCall::now()) {
        share(chunks, count, threads - 1, team, f);
    } else {
        serial();
    }
    LAST_CALL.ends(LastCall::now());
}

/// The time at which the last call of [`run`] ended that was large enough for several threads, in
/// nanoseconds of the system clock.
struct LastCall(AtomicU64);

static LAST_CALL: LastCall = LastCall(AtomicU64::new(0));

impl LastCall {
    fn now() -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    }

    /// Returns whether it was so short a time ago that workers are awake, or will be for the call
    /// after this one if they are woken.
    fn is_recent(&self, now: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        u128::from(now.abs_diff(last)) < LINGER.as_nanos()
    }

    fn ends(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

/// Calls `f` once with every chunk of arrays of these lengths: the index of the array and the range
/// of elements. `share` is the cost of an element in elements of an AdamW step.
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

/// A slice whose parts are processed by different threads.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: `Shared` represents an exclusive borrow of elements that are `Send`, and only
// `slice_mut` gives access to them, whose contract rules out overlapping slices.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            memory: PhantomData,
        }
    }

    /// Borrows the elements `from..to`.
    ///
    /// # Safety
    /// No other code accesses these elements while the result exists.
    #[expect(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice_mut(&self, from: usize, to: usize) -> &mut [T] {
        assert!(from <= to && to <= self.len);
        // SAFETY: the range is inside the borrowed slice, and by this function's contract no other
        // code accesses its elements.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(from), to - from) }
    }
}

/// Calls `f` with the start and the elements of every chunk of `size` elements.
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
        // SAFETY: chunks do not overlap, and `run` calls each index once.
        f(from, unsafe { shared.slice_mut(from, n.min(from + size)) });
    });
}

/// Calls `f` with the start and the elements of every part `from..to`. The parts are in order.
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
        // SAFETY: parts do not overlap, and `run` calls each index once.
        f(from, unsafe { shared.slice_mut(from, to) });
    });
}

/// A flag in [`Job::state`], set when the caller has found all chunks taken.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A contiguous range of chunks that one thread processes first. Parts do not share cache lines,
/// of which processors fetch two at a time.
#[repr(align(128))]
struct Part {
    next: AtomicUsize,
    end: usize,
}

impl Part {
    /// Divides chunks into so many parts.
    fn divide(chunks: usize, parts: usize) -> Box<[Self]> {
        let starts = |part| chunks * part / parts;
        let part = |part| Self {
            next: AtomicUsize::new(starts(part)),
            end: starts(part + 1),
        };
        (0..parts).map(part).collect()
    }
}

/// One call of [`run`]. Workers that wake up before the job is closed take chunks from it. Workers
/// of the pool that wake up later do not enter it, so the caller never waits for a sleeping one.
struct Job {
    /// The number of workers that have entered and not left, and the flag [`CLOSED`].
    state: AtomicUsize,
    parts: Box<[Part]>,
    /// The thread count of the caller, for nested calls.
    count: usize,
    f: &'static (dyn Fn(usize) + Sync),
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job {
    /// # Safety
    /// `f` exists until the job is closed and every worker has left it.
    unsafe fn new(chunks: usize, parts: usize, count: usize, f: &(dyn Fn(usize) + Sync)) -> Self {
        Self {
            state: AtomicUsize::new(0),
            parts: Part::divide(chunks, parts),
            count,
            // SAFETY: only the lifetime changes. `f` is called between entering an open job and
            // leaving it.
            f: unsafe {
                std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f)
            },
            caller: std::thread::current(),
            panic: Mutex::new(None),
        }
    }

    /// Processes the chunks of the part of the thread with this number, then those that are left.
    fn work(&self, number: usize) {
        let (before, after) = self.parts.split_at(number % self.parts.len());
        for part in after.iter().chain(before) {
            loop {
                let chunk = part.next.fetch_add(1, Ordering::Relaxed);
                if chunk >= part.end {
                    break;
                }
                (self.f)(chunk);
            }
        }
    }

    /// The body of a worker with this number.
    fn help(&self, number: usize) {
        let enter = |state| (state & CLOSED == 0).then_some(state + 1);
        let entered = self
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
        if entered.is_err() {
            return;
        }
        let work = || environment::standard(|| with_threads(self.count, || self.work(number)));
        if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
            // Stop all threads from taking further chunks.
            for part in &self.parts {
                part.next.store(part.end, Ordering::Relaxed);
            }
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
        if self.state.fetch_sub(1, Ordering::Release) == CLOSED + 1 {
            self.caller.unpark();
        }
    }

    /// Closes the job and waits for the workers that have entered it.
    fn close(&self) {
        // A worker that has not left is processing its last chunk, which takes microseconds.
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

thread_local! {
    /// The number of a worker, from 1.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    /// Whether the thread is a worker that waits awake.
    static LINGERS: Cell<bool> = const { Cell::new(false) };
}

/// Takes further jobs of the pool, until there has been none for [`LINGER`].
#[cfg_attr(miri, allow(dead_code))]
fn linger() {
    // A job that a waiting worker has taken returns to it.
    if LINGERS.replace(true) {
        return;
    }
    let mut since = Instant::now();
    while since.elapsed() < LINGER {
        match rayon::yield_now() {
            Some(Yield::Executed) => since = Instant::now(),
            _ => std::hint::spin_loop(),
        }
    }
    LINGERS.set(false);
}

/// Processes the job on the calling thread and workers of the pool.
#[cfg(not(miri))]
fn work_with_pool(job: &Arc<Job>, helpers: usize) {
    let pools = process().workers().pools(helpers, start);
    let workers = pools
        .iter()
        .flat_map(|pool| std::iter::repeat_n(pool, pool.current_num_threads()));
    for pool in workers.take(helpers) {
        let job = Arc::clone(job);
        pool.spawn(move || {
            job.help(NUMBER.get());
            drop(job);
            linger();
        });
    }
    job.work(NUMBER.get());
}

/// Under Miri, scoped threads replace the pool: its queues (crossbeam-epoch) violate Stacked
/// Borrows, and its threads never end, which Miri reports as an error.
#[cfg(miri)]
fn work_with_pool(job: &Arc<Job>, helpers: usize) {
    std::thread::scope(|scope| {
        for number in 1..=helpers {
            scope.spawn(move || job.help(number));
        }
        job.work(0);
    });
}

/// Calls `f` with every chunk on the calling thread and `helpers` others: the threads of `team`, or
/// workers of the pool.
fn share(
    chunks: usize,
    count: usize,
    helpers: usize,
    team: Option<Team>,
    f: &(dyn Fn(usize) + Sync),
) {
    struct Close<'a>(&'a Job);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    // SAFETY: the drop of `Close` waits, on return and on unwinding, until the job is closed and
    // every worker has left it.
    let job = Arc::new(unsafe { Job::new(chunks, 1 + helpers, count, f) });
    let close = Close(&job);
    if let Some(team) = team {
        team.run(&|number| job.help(number));
    } else {
        work_with_pool(&job, helpers);
    }
    drop(close);
    let panic = job
        .panic
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}

/// The state of one process. A forked child inherits the memory but not the threads, and another
/// thread may have held a lock at the time of the fork.
struct Process {
    id: u32,
    workers: Mutex<Workers>,
}

impl Process {
    fn workers(&self) -> MutexGuard<'_, Workers> {
        // A poisoned lock means that starting threads panicked. The threads already started still
        // work.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads of the process. They run until the process ends, and more may be added.
#[derive(Default)]
struct Workers {
    pools: Vec<Arc<ThreadPool>>,
    placement: Placement,
    /// The number of calls before the next attempt to start threads.
    wait: usize,
    /// The number of calls between the last failed attempt and the next one.
    pause: usize,
}

impl Workers {
    /// The upper bound of `pause`, so that attempts continue.
    const LONGEST: usize = 4096;

    fn count(&self) -> usize {
        self.pools
            .iter()
            .map(|pool| pool.current_num_threads())
            .sum()
    }

    /// Returns pools with at least `wanted` threads in total, or fewer if the system cannot start
    /// more. `start` receives the range of the missing thread numbers.
    #[cfg_attr(miri, allow(dead_code))]
    fn pools(
        &mut self,
        wanted: usize,
        start: impl FnOnce(Range<usize>) -> Option<(ThreadPool, Vec<Worker>)>,
    ) -> Vec<Arc<ThreadPool>> {
        let have = self.count();
        if have < wanted && self.wait > 0 {
            self.wait -= 1;
        } else if have < wanted {
            if let Some((pool, threads)) = start(have..wanted) {
                self.pools.push(Arc::new(pool));
                self.placement.add(threads);
            }
            self.pause = if self.count() < wanted {
                (2 * self.pause).clamp(1, Self::LONGEST)
            } else {
                0
            };
            self.wait = self.pause;
        }
        self.placement.keep_off_caller();
        self.pools.clone()
    }
}

/// Creates a pool of threads with these numbers, or of as many of them as the system can start.
#[cfg_attr(miri, allow(dead_code))]
fn start(numbers: Range<usize>) -> Option<(ThreadPool, Vec<Worker>)> {
    // If one thread fails to start, Rayon ends all threads of the pool. Therefore the threads are
    // started first, and the pool is built from those that run.
    let mut started = Vec::with_capacity(numbers.len());
    let (identify, identified) = mpsc::channel();
    for number in numbers {
        let (sender, receiver) = mpsc::channel::<ThreadBuilder>();
        let identify = identify.clone();
        let thread = std::thread::Builder::new()
            .name(format!("fastoptim-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                // The receiver lives until all threads have sent.
                let _ = identify.send(Worker::register());
                NUMBER.set(1 + number);
                drop(identify);
                receiver.recv().into_iter().for_each(ThreadBuilder::run);
            });
        if thread.is_err() {
            break;
        }
        started.push(sender);
    }
    if started.is_empty() {
        return None; // Rayon takes 0 threads to mean the number of processors.
    }
    drop(identify);
    let threads = identified.iter().collect();
    let pool = ThreadPoolBuilder::new()
        .num_threads(started.len())
        .spawn_handler(|thread| {
            let sent = started[thread.index()].send(thread);
            sent.map_err(|_| std::io::Error::other("the thread has ended"))
        })
        .build()
        .ok()?;
    Some((pool, threads))
}

fn process() -> &'static Process {
    static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());
    let id = std::process::id();
    let known = PROCESS.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from `Box::into_raw` below, and a stored one is never
    // freed.
    if let Some(process) = unsafe { known.as_ref() }
        && process.id == id
    {
        return process;
    }
    // The parent's state is leaked: dropping it would wait for threads that do not exist here.
    let fresh = Box::into_raw(Box::new(Process {
        id,
        workers: Mutex::default(),
    }));
    match PROCESS.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `fresh` comes from `Box::into_raw` and is never freed once stored.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` was not stored, so no other thread has it. `other` was stored by a
            // thread of this process and is never freed.
            unsafe {
                drop(Box::from_raw(fresh));
                &*other
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Checks with so many threads that every chunk runs once.
    pub(in crate::exec) fn run_every_chunk(threads: usize) {
        let chunks = if cfg!(miri) { 20 } else { 1000 };
        let hits: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
        with_threads(threads, || {
            run(hits.len(), usize::MAX, |chunk| {
                hits[chunk].fetch_add(1, Ordering::Relaxed);
            });
        });
        assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn every_chunk_runs_once() {
        let most = if cfg!(miri) { 4 } else { 64 };
        [1, 2, 3, most].into_iter().for_each(run_every_chunk);
    }

    /// Checks with so many threads that calls may nest.
    pub(in crate::exec) fn nest_calls(threads: usize) {
        let sum = AtomicUsize::new(0);
        with_threads(threads, || {
            run(10, usize::MAX, |_| {
                assert_eq!(count(), threads);
                run(10, usize::MAX, |j| {
                    sum.fetch_add(j, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(sum.into_inner(), 450);
    }

    #[test]
    fn calls_may_nest() {
        nest_calls(3);
    }

    /// Checks with so many threads that a panic reaches the caller, after all of them have stopped.
    pub(in crate::exec) fn panic_in_chunks(threads: usize) {
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            let hits = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                with_threads(threads, || {
                    run(64, usize::MAX, |chunk| {
                        hits.fetch_add(1, Ordering::Relaxed);
                        assert_ne!(chunk, 20, "the intended panic");
                    });
                });
            }));
            assert!(outcome.is_err());
            // The chunks before it are in the same part.
            assert!(hits.into_inner() > 20);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_workers_have_stopped() {
        panic_in_chunks(3);
    }

    #[test]
    fn each_thread_begins_with_its_part() {
        let order = Mutex::new(Vec::new());
        let f = |chunk| order.lock().expect("no panic").push(chunk);
        for (number, expected) in [
            (0, [0, 1, 2, 3, 4, 5, 6]),
            (1, [2, 3, 4, 5, 6, 0, 1]),
            (2, [4, 5, 6, 0, 1, 2, 3]),
            (4, [2, 3, 4, 5, 6, 0, 1]),
        ] {
            // SAFETY: the job does not outlive `f`.
            unsafe { Job::new(7, 3, 3, &f) }.work(number);
            assert_eq!(
                std::mem::take(&mut *order.lock().expect("no panic")),
                expected
            );
        }
    }

    #[test]
    fn no_worker_enters_a_closed_job() {
        let hits = AtomicUsize::new(0);
        // After a panic of the caller, chunks remain, and the values that `f` borrows no longer
        // exist.
        let f = |_| {
            hits.fetch_add(1, Ordering::Relaxed);
        };
        // SAFETY: `job` does not outlive `f`.
        let job = unsafe { Job::new(3, 2, 2, &f) };
        job.close();
        job.help(1);
        assert_eq!(job.state.load(Ordering::Relaxed), CLOSED);
        assert_eq!(hits.load(Ordering::Relaxed), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there is no pool")]
    fn a_worker_that_has_finished_takes_the_next_job_while_it_is_awake() {
        let (pool, _) = start(0..1).expect("a thread");
        let (send, receive) = mpsc::channel();
        let mut taken = false;
        // On a busy machine the second job may come too late.
        for _ in 0..1000 {
            let send = send.clone();
            pool.spawn(linger);
            pool.spawn(move || send.send(LINGERS.get()).expect("a receiver"));
            taken |= receive.recv().expect("a job");
        }
        assert!(taken);
        // It goes to sleep in the end.
        std::thread::sleep(10 * LINGER);
        pool.spawn(move || send.send(LINGERS.get()).expect("a receiver"));
        assert!(!receive.recv().expect("a job"));
    }

    #[test]
    fn a_call_is_recent_for_as_long_as_workers_wait() {
        let last = LastCall(AtomicU64::new(0));
        let (end, wait) = (1_000_000_000, LINGER.as_nanos() as u64);
        assert!(!last.is_recent(end));
        last.ends(end);
        assert_eq!(last.is_recent(end + wait / 2), wait > 0);
        assert!(!last.is_recent(end + wait));
        // The clock was set back.
        assert!(!last.is_recent(end - wait));
    }

    #[test]
    #[cfg_attr(miri, ignore = "many calls of safe code")]
    fn attempts_to_start_threads_become_less_frequent() {
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
    fn threads_are_added_to_existing_threads() {
        let mut workers = Workers::default();
        workers.pools(3, |_| start(0..1));
        assert_eq!(workers.count(), 1);
        workers.pools(3, |_| panic!("an attempt during the pause"));
        workers.pools(1, |_| panic!("an attempt with enough threads"));
        workers.pools(3, start);
        assert_eq!(workers.count(), 3);
        workers.pools(4, start);
        assert_eq!(workers.count(), 4);
        // All threads run at the same time.
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
    fn invalid_counts_are_ignored() {
        assert_eq!(parse(" 3 "), Some(3));
        for invalid in ["", "0", "-1", "two", "1.5", "1000000"] {
            assert_eq!(parse(invalid), None);
        }
    }
}
