//! `fastoptim._core`: checks arrays and calls the core. No arithmetic lives here.

mod arguments;
mod error;
mod loss;
mod memory;
mod ops;
mod optim;
mod runtime;

use fastoptim::exec::isa::{self, Tier};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// The instruction set in force.
#[pyfunction]
fn tier() -> &'static str {
    isa::current().name()
}

/// The instruction sets of this processor, slowest first.
#[pyfunction]
fn tiers() -> Vec<&'static str> {
    Tier::supported().into_iter().map(Tier::name).collect()
}

// The interpreter's lock is needed: a fork is only safe for what other threads of the parent are in
// the middle of where none of them is changing an object of ours. With the lock only the forking
// thread is attached, and objects change, and `inflight`'s table is locked, only while attached.
#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    isa::choose().map_err(|error| PyImportError::new_err(error.to_string()))?;
    runtime::process::watch_forks()?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(tier, module)?)?;
    module.add_function(wrap_pyfunction!(tiers, module)?)?;
    ops::clip::register(module)?;
    runtime::commit::register(module)?;
    loss::register(module)?;
    optim::engine::register(module)?;
    optim::hold::register(module)?;
    optim::load::register(module)?;
    ops::checksum::register(module)?;
    ops::arrays::register(module)?;
    ops::penalty::register(module)?;
    memory::slab::register(module)?;
    runtime::threads::register(module)
}
