//! Where and when workers run: off the processor of their caller, and soon after they are woken.
//!
//! Linux wakes a thread on the processor of the thread that wakes it if no other seems to be idle,
//! and those of a virtual machine that have slept for milliseconds do not: the host has taken them
//! away. The worker then waits there until the time slice of the caller ends. With two processors
//! (Zen 3, KVM), a worker that was woken 5 ms after its last job started after 2.8 ms, and starts
//! after 0.08 ms if the processor of the caller is not among its own.
//!
//! Threads of other libraries may wait awake on all processors, as those of PyTorch (libgomp) do for
//! about 5 ms after each operation. A worker that is woken then waits until the slice of such a
//! thread ends, 3 ms. Since version 6.12, Linux gives the processor at once to a woken thread that
//! asks for shorter slices, 0.1 ms here. After an operation of PyTorch, cross-entropy of 65536 x 10
//! then takes 0.58 ms and not 0.90, as on one thread (two processors of Zen 4).

#[cfg(target_os = "linux")]
pub(super) use linux::{Placement, Worker};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Placement, Worker};

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;
    use std::mem::{size_of, zeroed};

    use libc::{CPU_CLR, CPU_COUNT, CPU_EQUAL, CPU_ISSET, cpu_set_t, pid_t, sched_attr};

    thread_local! {
        static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    }

    /// A worker.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::exec) struct Worker(pid_t);

    impl Worker {
        /// Makes the calling thread a worker.
        pub(in crate::exec) fn register() -> Self {
            IS_WORKER.set(true);
            ask_for_short_slices();
            // The function `gettid` needs glibc 2.30.
            // SAFETY: the call has no arguments and no conditions.
            Self(unsafe { libc::syscall(libc::SYS_gettid) as pid_t })
        }
    }

    /// The shortest slice that the system gives, in nanoseconds.
    const SLICE: u64 = 100_000;

    /// The scheduling attributes of the calling thread.
    fn own_attributes() -> Option<sched_attr> {
        // SAFETY: the system writes at most as many bytes as stated, and any bits are valid
        // numbers.
        unsafe {
            let (mut own, size): (sched_attr, _) = (zeroed(), size_of::<sched_attr>());
            let result = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut own, size, 0);
            (result == 0).then_some(own)
        }
    }

    /// Asks for slices of [`SLICE`] for the calling thread. Its policy, and its share of the
    /// processor, stay the same. Systems that have no slices ignore or refuse it.
    fn ask_for_short_slices() {
        const HAVE_SLICES: [u32; 2] = [libc::SCHED_OTHER as u32, libc::SCHED_BATCH as u32];
        if cfg!(miri) {
            return;
        }
        if let Some(mut attributes) = own_attributes()
            && HAVE_SLICES.contains(&attributes.sched_policy)
        {
            attributes.size = size_of::<sched_attr>() as u32;
            attributes.sched_runtime = SLICE;
            // SAFETY: the attributes are as large as stated.
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        }
    }

    /// The workers, and the processors that they were last given.
    #[derive(Default)]
    pub(in crate::exec) struct Placement {
        workers: Vec<Worker>,
        given: Option<cpu_set_t>,
    }

    impl Placement {
        /// Adds workers.
        pub(in crate::exec) fn add(&mut self, workers: Vec<Worker>) {
            self.workers.extend(workers);
            self.given = None;
        }

        /// Gives the workers all processors of the calling thread but the one that it runs on, if
        /// these are as many as there are workers. Does nothing if the workers have them already,
        /// if the caller is a worker, whose processors are those of another caller, or if the
        /// system refuses.
        pub(in crate::exec) fn keep_off_caller(&mut self) {
            if IS_WORKER.get() {
                return;
            }
            let Some(others) = others() else { return };
            // SAFETY: sets are valid for any bits.
            let (count, is_given) = unsafe {
                let is_given = self.given.is_some_and(|given| CPU_EQUAL(&given, &others));
                (CPU_COUNT(&others) as usize, is_given)
            };
            if is_given || count < self.workers.len() {
                return;
            }
            self.given = Some(others);
            for &Worker(worker) in &self.workers {
                // SAFETY: the set is initialized and as large as stated. Workers run until the
                // process ends, so the identifier is that of a worker.
                unsafe {
                    libc::sched_setaffinity(worker, size_of::<cpu_set_t>(), &raw const others)
                };
            }
        }
    }

    /// The processors on which the calling thread may run, but for the one on which it does. `None`
    /// if a set cannot hold them.
    fn others() -> Option<cpu_set_t> {
        // SAFETY: a set of processors is an array of integers, for which 0 is valid; it is as large
        // as stated; and the processor is in range.
        unsafe {
            let mut set: cpu_set_t = zeroed();
            if libc::sched_getaffinity(0, size_of::<cpu_set_t>(), &raw mut set) != 0 {
                return None;
            }
            let processor = usize::try_from(libc::sched_getcpu()).ok()?;
            if processor >= 8 * size_of::<cpu_set_t>() || !CPU_ISSET(processor, &set) {
                return None;
            }
            CPU_CLR(processor, &mut set);
            Some(set)
        }
    }

    #[cfg(all(test, not(miri)))]
    mod tests {
        use std::sync::mpsc;

        use super::*;

        #[test]
        fn workers_get_short_slices_and_keep_the_rest() {
            let before = own_attributes().expect("attributes");
            let after = std::thread::spawn(|| {
                Worker::register();
                own_attributes().expect("attributes")
            });
            let after = after.join().expect("no panic");
            // Systems before 6.12 do not tell the slices of normal threads.
            let slice = if before.sched_runtime == 0 { 0 } else { SLICE };
            assert_eq!(after.sched_runtime, slice);
            let others =
                |found: sched_attr| (found.sched_policy, found.sched_flags, found.sched_nice);
            assert_eq!(others(after), others(before));
        }

        fn processors_of(Worker(thread): Worker) -> Vec<usize> {
            // SAFETY: as in `others`.
            let set = unsafe {
                let mut set: cpu_set_t = zeroed();
                let size = size_of::<cpu_set_t>();
                assert_eq!(libc::sched_getaffinity(thread, size, &raw mut set), 0);
                set
            };
            // SAFETY: the processors are in range.
            let has = |processor: &usize| unsafe { CPU_ISSET(*processor, &set) };
            (0..8 * size_of::<cpu_set_t>()).filter(has).collect()
        }

        /// Calls `f` with so many workers and their processors at the start.
        fn with_workers(count: usize, f: impl FnOnce(&[Worker], Vec<usize>)) {
            std::thread::scope(|scope| {
                let (identify, identified) = mpsc::channel();
                let ends: Vec<_> = (0..count)
                    .map(|_| {
                        let (end, ended) = mpsc::channel::<()>();
                        let identify = identify.clone();
                        scope.spawn(move || {
                            identify.send(Worker::register()).expect("a receiver");
                            let _ = ended.recv();
                        });
                        end
                    })
                    .collect();
                let workers: Vec<_> = identified.iter().take(count).collect();
                f(&workers, processors_of(Worker(0)));
                drop(ends);
            });
        }

        #[test]
        fn workers_get_the_other_processors_of_the_caller() {
            with_workers(1, |workers, mut expected| {
                let mut placement = Placement::default();
                placement.add(workers.to_vec());
                placement.keep_off_caller();
                let found = processors_of(workers[0]);
                if expected.len() > 1 {
                    assert_eq!(found.len() + 1, expected.len());
                    expected.retain(|processor| found.contains(processor));
                }
                assert_eq!(found, expected);
            });
        }

        #[test]
        fn workers_keep_their_processors_if_there_are_too_few_others() {
            with_workers(processors_of(Worker(0)).len(), |workers, all| {
                let mut placement = Placement::default();
                placement.add(workers.to_vec());
                placement.keep_off_caller();
                for &worker in workers {
                    assert_eq!(processors_of(worker), all);
                }
            });
        }

        #[test]
        fn a_worker_that_calls_changes_nothing() {
            with_workers(1, |workers, all| {
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        Worker::register();
                        let mut placement = Placement::default();
                        placement.add(workers.to_vec());
                        placement.keep_off_caller();
                    });
                });
                assert_eq!(processors_of(workers[0]), all);
            });
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    #[derive(Debug)]
    pub(in crate::exec) struct Worker;

    impl Worker {
        pub(in crate::exec) fn register() -> Self {
            Self
        }
    }

    #[derive(Default)]
    pub(in crate::exec) struct Placement;

    impl Placement {
        pub(in crate::exec) fn add(&mut self, _workers: Vec<Worker>) {}

        pub(in crate::exec) fn keep_off_caller(&mut self) {}
    }
}
