//! Keeps workers off the processor of their caller.
//!
//! Linux wakes a thread on the processor of the thread that wakes it if no other seems to be idle,
//! and those of a virtual machine that have slept for milliseconds do not: the host has taken them
//! away. The worker then waits there until the time slice of the caller ends. With two processors
//! (Zen 3, KVM), a worker that was woken 5 ms after its last job started after 2.8 ms, and starts
//! after 0.08 ms if the processor of the caller is not among its own.

#[cfg(target_os = "linux")]
pub(super) use linux::{Placement, ThreadId};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Placement, ThreadId};

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::{size_of, zeroed};

    use libc::{CPU_CLR, CPU_COUNT, CPU_ISSET, cpu_set_t, pid_t};

    /// A thread of this process.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::exec) struct ThreadId(pid_t);

    impl ThreadId {
        /// The calling thread.
        pub(in crate::exec) fn current() -> Self {
            // The function `gettid` needs glibc 2.30.
            // SAFETY: the call has no arguments and no conditions.
            Self(unsafe { libc::syscall(libc::SYS_gettid) as pid_t })
        }
    }

    /// The workers, and the processor that they are kept off.
    #[derive(Default)]
    pub(in crate::exec) struct Placement {
        workers: Vec<ThreadId>,
        avoided: Option<usize>,
    }

    impl Placement {
        /// Adds workers.
        pub(in crate::exec) fn add(&mut self, workers: Vec<ThreadId>) {
            self.workers.extend(workers);
            self.avoided = None;
        }

        /// Gives the workers all processors of the calling thread but the one that it runs on, if
        /// there are others. Does nothing while the caller stays where it was, or if the system
        /// refuses.
        pub(in crate::exec) fn keep_off_caller(&mut self) {
            // SAFETY: the function has no conditions.
            let processor = usize::try_from(unsafe { libc::sched_getcpu() }).ok();
            if self.avoided == processor {
                return;
            }
            self.avoided = processor;
            let Some(processors) = processor.and_then(all_but) else {
                return;
            };
            for &ThreadId(worker) in &self.workers {
                // SAFETY: the set is initialized and as large as stated. Workers run until the
                // process ends, so the identifier is that of a worker.
                unsafe {
                    libc::sched_setaffinity(worker, size_of::<cpu_set_t>(), &raw const processors)
                };
            }
        }
    }

    /// The processors on which the calling thread may run, but for this one. `None` if there are no
    /// others, or more than a set can hold.
    fn all_but(processor: usize) -> Option<cpu_set_t> {
        // SAFETY: a set of processors is an array of integers, for which 0 is valid; it is as large
        // as stated; and the processor is in range, as it is in the set.
        unsafe {
            let mut set: cpu_set_t = zeroed();
            if libc::sched_getaffinity(0, size_of::<cpu_set_t>(), &raw mut set) != 0 {
                return None;
            }
            if processor >= 8 * size_of::<cpu_set_t>() || !CPU_ISSET(processor, &set) {
                return None;
            }
            CPU_CLR(processor, &mut set);
            (CPU_COUNT(&set) > 0).then_some(set)
        }
    }

    #[cfg(all(test, not(miri)))]
    mod tests {
        use std::sync::mpsc;

        use super::*;

        fn processors_of(ThreadId(thread): ThreadId) -> Vec<usize> {
            // SAFETY: as in `all_but`.
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

        #[test]
        fn workers_get_the_other_processors_of_the_caller() {
            let (identify, identified) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            let worker = std::thread::spawn(move || {
                identify.send(ThreadId::current()).expect("a receiver");
                let _ = ended.recv();
            });
            let id = identified.recv().expect("a sender");
            let mut expected = processors_of(ThreadId::current());
            let mut placement = Placement::default();
            placement.add(vec![id]);
            placement.keep_off_caller();
            if expected.len() > 1 {
                let avoided = placement.avoided.expect("a processor");
                expected.retain(|&processor| processor != avoided);
            }
            assert_eq!(processors_of(id), expected);
            drop(end);
            worker.join().expect("no panic");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    #[derive(Debug)]
    pub(in crate::exec) struct ThreadId;

    impl ThreadId {
        pub(in crate::exec) fn current() -> Self {
            Self
        }
    }

    #[derive(Default)]
    pub(in crate::exec) struct Placement;

    impl Placement {
        pub(in crate::exec) fn add(&mut self, _workers: Vec<ThreadId>) {}

        pub(in crate::exec) fn keep_off_caller(&mut self) {}
    }
}
