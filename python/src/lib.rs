//! `fastoptim._core`: checks arrays and calls the core, which computes on them.

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

/// Returns the name of the instruction set in use.
#[pyfunction]
fn tier() -> &'static str {
    isa::current().name()
}

/// Returns the names of the instruction sets of this processor, slowest first.
#[pyfunction]
fn tiers() -> Vec<&'static str> {
    Tier::supported().into_iter().map(Tier::name).collect()
}

// The module requires the GIL: a fork is safe only if no other thread is changing an object of this
// module or holds the lock of the table in `inflight`. Both happen only while a thread is attached
// to the interpreter, and with the GIL only the forking thread is attached.
#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    isa::choose().map_err(|error| PyImportError::new_err(error.to_string()))?;
    runtime::process::watch_forks()?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("PART", fastoptim::step::PART)?;
    module.add("SCALED", fastoptim::storage::BLOCK)?;
    module.add_function(wrap_pyfunction!(tier, module)?)?;
    module.add_function(wrap_pyfunction!(tiers, module)?)?;
    ops::clip::register(module)?;
    runtime::commit::register(module)?;
    loss::register(module)?;
    optim::arithmetic::register(module)?;
    optim::engine::register(module)?;
    optim::hold::register(module)?;
    optim::tensors::engine::register(module)?;
    optim::load::register(module)?;
    ops::checksum::register(module)?;
    ops::arrays::register(module)?;
    ops::penalty::register(module)?;
    memory::foreign::register(module)?;
    memory::pages::register(module)?;
    memory::slab::register(module)?;
    runtime::threads::register(module)
}
