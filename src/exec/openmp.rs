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

/// Uses the threads that the OpenMP library on which the loaded library `name` depends keeps for the
/// calling thread, while they wait awake. Only GCC's and LLVM's libraries on Linux are known.
/// Returns whether the calling thread uses a library: the first one stays, for the thread that made
/// the first call.
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
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};

    use libc::clockid_t;

    type Body = unsafe extern "C" fn(*mut c_void);
    type Parallel =
        unsafe extern "C" fn(body: Body, argument: *mut c_void, threads: c_uint, flags: c_uint);
    type Number = unsafe extern "C" fn() -> c_int;
    type Pause = unsafe extern "C" fn(kind: c_int) -> c_int;

    /// `omp_pause_hard`.
    const HARD: c_int = 2;

    /// The variables that change the stack size of the libraries' threads.
    const STACK_SIZES: [&str; 3] = ["OMP_STACKSIZE", "GOMP_STACKSIZE", "KMP_STACKSIZE"];

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
        /// Ends the threads of the calling thread.
        pause: Pause,
    }

    static LIBRARY: OnceLock<Library> = OnceLock::new();

    pub(super) fn adopt(name: &CStr) -> bool {
        let known_stack = STACK_SIZES.iter().all(|it| std::env::var_os(it).is_none());
        if LIBRARY.get().is_none()
            && known_stack
            && !is_forked()
            && let Some(library) = Library::find(name)
            // Another thread may have been first.
            && LIBRARY.set(library).is_ok()
        {
            // SAFETY: the functions are in this library, which is never closed.
            let refused = unsafe { libc::pthread_atfork(Some(release), None, Some(forget)) };
            if refused == 0 {
                KNOWN.set(Known::Nothing);
            }
        }
        !matches!(KNOWN.get(), Known::Alone)
    }

    /// Ends the calling thread's team before a fork, if work of this package has run on it. The child
    /// inherits the library's records of a team without its threads, and PyTorch would wait for them
    /// forever. The library starts another team when it needs it.
    extern "C" fn release() {
        if let (Known::Clock(_), Some(library)) = (KNOWN.get(), LIBRARY.get())
            && library.number(library.in_parallel) == 0
        {
            // SAFETY: the OpenMP standard allows the call outside of parallel regions.
            unsafe { (library.pause)(HARD) };
            KNOWN.set(Known::Nothing);
        }
    }

    /// Uses no team in a forked child, where the library may have records of other teams.
    extern "C" fn forget() {
        KNOWN.set(Known::Alone);
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
            let symbol = |handle: *mut c_void, name: &CStr| {
                // SAFETY: the handle is valid. It is never closed, so the functions stay.
                let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
                (!function.is_null()).then_some(function)
            };
            // The order of the dynamic linker, which finds a preloaded library first.
            let mut handles = [libc::RTLD_DEFAULT, handle].into_iter();
            let (handle, parallel) =
                handles.find_map(|it| symbol(it, c"GOMP_parallel").map(|found| (it, found)))?;
            let number = |name: &CStr| {
                let function = symbol(handle, name)?;
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
                // SAFETY: by the OpenMP standard, the function has this type.
                pause: unsafe {
                    std::mem::transmute::<*mut c_void, Pause>(symbol(
                        handle,
                        c"omp_pause_resource_all",
                    )?)
                },
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
        /// The library gave it no other thread, or must not be used by it.
        Alone,
        /// The clock of the processor time of another thread.
        Clock(clockid_t),
    }

    thread_local! {
        /// The library would start threads for each thread of Python, so only one uses it.
        static KNOWN: Cell<Known> = const { Cell::new(Known::Alone) };
    }

    /// The threads that wait for the calling thread.
    pub(in crate::exec) struct Team {
        library: &'static Library,
        threads: usize,
    }

    impl Team {
        /// Returns the calling thread's team if it waits awake and has `count` threads, or fewer if
        /// not `exact`.
        ///
        /// The caller of a team waits for all of its threads, and threads asleep take as long to
        /// wake up as the work takes. A team of which nothing is known yet is taken to be awake; if
        /// there is none, its first call starts it.
        pub(in crate::exec) fn awake(count: usize, exact: bool) -> Option<Self> {
            let known = KNOWN.get();
            let library = LIBRARY.get().filter(|_| !matches!(known, Known::Alone))?;
            let threads = library.number(library.max_threads);
            // A call with another number would end or start threads of the library.
            if threads < 2
                || threads > count
                || (exact && threads != count)
                || library.number(library.in_parallel) != 0
            {
                return None;
            }
            let times = match known {
                Known::Clock(clock) => time(clock).zip(time(clock)),
                _ => None,
            };
            let awake = match times {
                Some((before, after)) => after > before,
                // The library has no threads yet, or others than it had.
                None => can_start(threads - 1),
            };
            if !awake && times.is_none() {
                KNOWN.set(Known::Alone);
            }
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

    /// Returns whether this process is a forked child that runs no other program, or may be one: the
    /// file has the flags of its first thread, or 0 where the system has none (gVisor). A child
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
        !matches!(flags, Some(Ok(flags)) if flags != 0 && flags & FORKED == 0)
    }

    /// Returns whether the system gives the process so many more threads. The library ends the
    /// process if it cannot start a thread.
    fn can_start(threads: usize) -> bool {
        let Some(stack) = default_stack() else {
            return false;
        };
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let start = |_| {
            let gate = Arc::clone(&gate);
            std::thread::Builder::new()
                .stack_size(stack)
                .spawn(move || drop(gate.lock()))
        };
        let started: Vec<_> = (0..threads).map_while(|it| start(it).ok()).collect();
        drop(closed);
        let all = started.len() == threads;
        started.into_iter().for_each(|thread| {
            let _ = thread.join();
        });
        all
    }

    /// The stack size of a thread for which none is chosen.
    fn default_stack() -> Option<usize> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        let mut size = 0;
        // SAFETY: the attributes are used only if the first call has initialized them.
        let found = unsafe {
            libc::pthread_attr_init(attributes.as_mut_ptr()) == 0 && {
                let result = libc::pthread_attr_getstacksize(attributes.as_ptr(), &raw mut size);
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                result == 0
            }
        };
        found.then_some(size)
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
            adopt(c"libgomp.so.1");
            assert!(LIBRARY.get().is_some());
            // For the threads of all tests.
            KNOWN.set(Known::Nothing);
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
            while Team::awake(2, true).is_some() != awake {
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
            assert!(Team::awake(2, true).is_some_and(|team| team.threads() == 2));
            assert!(Team::awake(3, true).is_none());
            assert!(Team::awake(3, false).is_some_and(|team| team.threads() == 2));
            assert!(Team::awake(1, false).is_none());
            KNOWN.set(Known::Alone);
            assert!(Team::awake(2, true).is_none());
        }

        #[test]
        fn a_released_team_has_no_threads() {
            if !start() {
                return;
            }
            team().run(&|_| ());
            let Known::Clock(clock) = KNOWN.get() else {
                panic!("a team of two");
            };
            assert!(time(clock).is_some());
            release();
            assert!(time(clock).is_none());
            assert!(matches!(KNOWN.get(), Known::Nothing));
            team().run(&|_| ());
            assert!(matches!(KNOWN.get(), Known::Clock(_)));
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
        pub(in crate::exec) fn awake(_count: usize, _exact: bool) -> Option<Self> {
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
