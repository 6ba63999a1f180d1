//! The upper bound that arithmetic sets to the speed of a step.

use fastoptim::exec::pool;
use pyo3::prelude::*;

use super::group::Keys;
use crate::error::to_py;
use crate::runtime::threads::detached;

/// Applies the rule of a group to so many elements, in the type of its arithmetic: the loop of a
/// step over one block in the L1 cache of each thread, repeated.
#[pyfunction]
#[pyo3(signature = (kind, group, elements, double=false))]
fn arithmetic(
    py: Python<'_>,
    kind: &str,
    group: &Bound<'_, PyAny>,
    elements: u32,
    double: bool,
) -> PyResult<()> {
    let method = Keys::named(py, kind)?.read(group, 0)?.method;
    detached(py, || {
        let (elements, threads) = (elements as usize, pool::count());
        if double {
            method.arithmetic::<f64>(elements, threads)
        } else {
            method.arithmetic::<f32>(elements, threads)
        }
    })
    .map_err(to_py)?;
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(arithmetic, module)?)
}
