//! The threads that an OpenMP library keeps for the calling thread.
//!
//! The threads of PyTorch (libgomp) wait awake for about 5 ms after each of its operations, on all
//! processors. A worker of the pool that is woken in this time shares its processor with such a
//! thread, which leaves it little of the first milliseconds. The waiting threads start at once:
//! after an operation of PyTorch, cross-entropy of 65536 x 10 takes 0.53 ms with the pool and 0.30
//! with OpenMP's threads, as long as where no thread waits (two processors of Zen 5, Linux 6.18).

use std::ffi::CStr;

#[cfg(all(target_os = "linux", not(miri)))]
pub(super) use linux::Team;
#[cfg(any(not(target_os = "linux"), miri))]
pub(super) use other::Team;

/// Uses the threads of the OpenMP library on which the loaded library `name` depends, while they
/// wait awake. Only GCC's and LLVM's libraries on Linux are known. Returns whether it is one.
///
/// The first library stays.
pub fn adopt(name: &CStr) -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    return linux::adopt(name);
    #[cfg(any(not(target_os = "linux"), miri))]
    {
        let _ = name;
        false
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use std::cell::Cell;
    use std::ffi::{CStr, c_int, c_uint, c_void};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI32, Ordering};

    use libc::clockid_t;

    type Body = unsafe extern "C" fn(*mut c_void);
    type Parallel =
        unsafe extern "C" fn(body: Body, argument: *mut c_void, threads: c_uint, flags: c_uint);
    type Number = unsafe extern "C" fn() -> c_int;

    /// The functions of an OpenMP library.
    #[derive(Debug)]
    struct Library {
        /// Calls the body on every thread of the caller's team and waits for all of them. With 0
        /// threads, the team has the usual number.
        parallel: Parallel,
        /// The usual number of threads in a team of the calling thread.
        max_threads: Number,
        /// Whether the calling thread works in a team of several threads.
        in_parallel: Number,
        /// The number of the calling thread in its team.
        thread_num: Number,
        /// The process that found the library. The threads do not exist in a forked child, where a
        /// call would wait for them forever.
        process: u32,
    }

    static LIBRARY: OnceLock<Library> = OnceLock::new();

    pub(super) fn adopt(name: &CStr) -> bool {
        if LIBRARY.get().is_none()
            && !is_forked()
            && let Some(library) = Library::find(name)
        {
            // Another thread may have been first.
            let _ = LIBRARY.set(library);
        }
        LIBRARY.get().is_some()
    }

    impl Library {
        /// Finds the OpenMP library on which a loaded library depends.
        fn find(name: &CStr) -> Option<Self> {
            // SAFETY: the name is a string, and the flag forbids loading, and so running code.
            let handle =
                unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
            if handle.is_null() {
                return None;
            }
            let find = |name: &CStr| {
                // SAFETY: the handle is valid. It is never closed, so the functions stay.
                let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
                (!function.is_null()).then_some(function)
            };
            let parallel = find(c"GOMP_parallel")?;
            let number = |name: &CStr| {
                let function = find(name)?;
                // SAFETY: by the OpenMP standard, the functions named below have this type.
                Some(unsafe { std::mem::transmute::<*mut c_void, Number>(function) })
            };
            Some(Self {
                // SAFETY: GCC calls the function of this name with this type, and so does every
                // library that has it.
                parallel: unsafe { std::mem::transmute::<*mut c_void, Parallel>(parallel) },
                max_threads: number(c"omp_get_max_threads")?,
                in_parallel: number(c"omp_in_parallel")?,
                thread_num: number(c"omp_get_thread_num")?,
                process: std::process::id(),
            })
        }

        fn number(&self, function: Number) -> usize {
            // SAFETY: the functions have no arguments and no conditions.
            unsafe { function() }.try_into().unwrap_or(0)
        }
    }

    /// What is known of the team of the calling thread.
    #[derive(Clone, Copy, Debug)]
    enum Known {
        Nothing,
        /// The library gave it no other thread.
        Alone,
        /// The clock of the processor time of another thread.
        Clock(clockid_t),
    }

    thread_local! {
        static KNOWN: Cell<Known> = const { Cell::new(Known::Nothing) };
    }

    /// The threads that wait for the calling thread.
    pub(in crate::exec) struct Team {
        library: &'static Library,
        threads: usize,
    }

    impl Team {
        /// Returns the calling thread's team if it waits awake and has `count` threads, or any
        /// number without a `count`.
        ///
        /// The caller of a team waits for all of its threads, and threads asleep take as long to
        /// wake up as the work takes.
        pub(in crate::exec) fn awake(count: Option<usize>) -> Option<Self> {
            let library = LIBRARY.get()?;
            let threads = library.number(library.max_threads);
            // A call with another number would end or start threads of the library.
            if threads != count.unwrap_or(threads)
                || threads < 2
                || library.number(library.in_parallel) != 0
                || library.process != std::process::id()
            {
                return None;
            }
            let awake = match KNOWN.get() {
                Known::Alone => false,
                Known::Nothing => true,
                Known::Clock(clock) => match (time(clock), time(clock)) {
                    (Some(before), Some(after)) => after > before,
                    // The library has replaced its threads.
                    _ => true,
                },
            };
            awake.then_some(Self { library, threads })
        }

        /// The number of threads, the calling one included.
        pub(in crate::exec) fn threads(&self) -> usize {
            self.threads
        }

        /// Calls `f` with the number of each thread in the team on that thread. The calling thread
        /// has number 0.
        pub(in crate::exec) fn run(&self, f: &(dyn Fn(usize) + Sync)) {
            struct Call<'a> {
                library: &'a Library,
                f: &'a (dyn Fn(usize) + Sync),
                clock: AtomicI32,
            }
            unsafe extern "C" fn body(call: *mut c_void) {
                // SAFETY: `run` passes its `Call`, and returns after all threads have.
                let call = unsafe { &*call.cast::<Call<'_>>() };
                let number = call.library.number(call.library.thread_num);
                if number != 0 {
                    let mut clock = 0;
                    // SAFETY: the thread is the calling one, and `clock` is valid.
                    let result = unsafe {
                        libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock)
                    };
                    if result == 0 {
                        call.clock.store(clock, Ordering::Relaxed);
                    }
                }
                (call.f)(number);
            }
            let library = self.library;
            let mut call = Call {
                library,
                f,
                clock: AtomicI32::new(0),
            };
            // SAFETY: the body has the required type, and its argument lives until all threads have
            // returned. A panic ends the process, as the body is a function of C.
            unsafe { (library.parallel)(body, (&raw mut call).cast(), 0, 0) };
            KNOWN.set(match call.clock.into_inner() {
                0 => Known::Alone,
                clock => Known::Clock(clock),
            });
        }
    }

    /// Returns whether this process is a forked child that runs no other program, or may be one. It
    /// inherits the library's records of threads, which do not exist, so that the library would wait
    /// for them forever.
    fn is_forked() -> bool {
        /// `PF_FORKNOEXEC` of Linux.
        const FORKED: u32 = 0x40;
        let stat = std::fs::read("/proc/self/stat").unwrap_or_default();
        // The name of the program, in parentheses, may have any characters.
        let stat = String::from_utf8_lossy(&stat);
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let flags = fields.split_whitespace().nth(6).map(str::parse::<u32>);
        !matches!(flags, Some(Ok(flags)) if flags & FORKED == 0)
    }

    /// The processor time of a thread. `None` if it has ended.
    fn time(clock: clockid_t) -> Option<(i64, i64)> {
        // SAFETY: a time is two integers, for which 0 is valid.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: `time` is valid, and the system refuses clocks that do not exist.
        let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
        (result == 0).then_some((time.tv_sec as i64, time.tv_nsec as i64))
    }

    #[cfg(test)]
    mod tests {
        use std::time::{Duration, Instant};

        use super::*;
        use crate::exec::pool::tests::{nest_calls, panic_in_chunks, run_every_chunk};

        /// Starts GCC's library with teams of two, if it is installed.
        fn start() -> bool {
            // SAFETY: the library has no constructors with conditions.
            let loaded = unsafe { libc::dlopen(c"libgomp.so.1".as_ptr(), libc::RTLD_NOW) };
            if loaded.is_null() {
                eprintln!("skipped: libgomp is not installed");
                return false;
            }
            assert!(adopt(c"libgomp.so.1"));
            // SAFETY: the OpenMP standard gives the function this type.
            unsafe {
                let set = libc::dlsym(loaded, c"omp_set_num_threads".as_ptr());
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int)>(set)(2);
            }
            true
        }

        fn team() -> Team {
            let library = LIBRARY.get().expect("a library");
            let threads = 2;
            Team { library, threads }
        }

        /// Waits until the team is awake, or asleep. Other threads may keep it from its processor.
        fn await_team(awake: bool) {
            let start = Instant::now();
            while Team::awake(Some(2)).is_some() != awake {
                assert!(start.elapsed() < Duration::from_secs(60));
                if awake {
                    team().run(&|_| ());
                }
            }
        }

        #[test]
        fn a_team_is_used_while_it_is_awake() {
            if !start() {
                return;
            }
            team().run(&|_| ());
            assert!(matches!(KNOWN.get(), Known::Clock(_)));
            await_team(true);
            // The threads that wait go to sleep after a while.
            await_team(false);
            // The library has replaced a thread that has ended.
            let clock = std::thread::spawn(|| {
                let mut clock = 0;
                // SAFETY: as in `run`.
                unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
                clock
            });
            KNOWN.set(Known::Clock(clock.join().expect("no panic")));
            assert!(Team::awake(None).is_some_and(|team| team.threads() == 2));
            assert!(Team::awake(Some(3)).is_none());
            KNOWN.set(Known::Alone);
            assert!(Team::awake(Some(2)).is_none());
        }

        #[test]
        fn a_team_does_the_work_of_the_pool() {
            if !start() {
                return;
            }
            await_team(true);
            for check in [run_every_chunk, nest_calls, panic_in_chunks] {
                KNOWN.set(Known::Nothing);
                check(2);
                assert!(matches!(KNOWN.get(), Known::Clock(_)));
            }
        }

        #[test]
        fn an_unknown_library_is_refused() {
            assert!(Library::find(c"libfastoptim-none.so").is_none());
            // It has no OpenMP.
            assert!(Library::find(c"libc.so.6").is_none());
        }
    }
}

#[cfg(any(not(target_os = "linux"), miri))]
mod other {
    pub(in crate::exec) enum Team {}

    impl Team {
        pub(in crate::exec) fn awake(_count: Option<usize>) -> Option<Self> {
            None
        }

        pub(in crate::exec) fn threads(&self) -> usize {
            match *self {}
        }

        pub(in crate::exec) fn run(&self, _f: &(dyn Fn(usize) + Sync)) {
            match *self {}
        }
    }
}
