//! Threads, forks and interrupts.

pub(crate) mod commit;
pub(crate) mod exclusive;
pub(crate) mod process;
pub(crate) mod threads;
