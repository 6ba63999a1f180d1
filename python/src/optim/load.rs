//! Loading from a file straight into the memory of optimizers and other objects.

use std::ops::Range;
use std::sync::OnceLock;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::engine::Engine;
use super::state::Restored;
use crate::memory::inflight;
use crate::memory::items::Items;
use crate::runtime::commit::Then;

/// An optimizer with what it is to be: for each parameter its steps, its numbers and the names of
/// the state arrays that it has; the steps applied, and whether it is at its average.
type Part<'py> = (
    Bound<'py, Engine>,
    Vec<(u64, Vec<f64>, Vec<String>)>,
    u64,
    bool,
);

/// Allocates the state arrays of a state that `expected` asks for, which hold nothing yet, and adds
/// to `before` how many each parameter had.
#[pyfunction]
fn reserve(
    py: Python<'_>,
    engine: &Bound<'_, Engine>,
    groups: &Bound<'_, PyList>,
    state: Items<Restored<'_>>,
    steps: u64,
    before: &Bound<'_, PyList>,
) -> PyResult<()> {
    let inner = &mut *engine.get().lock()?;
    for parameter in &inner.parameters {
        before.append(parameter.slots.len())?;
    }
    let steps = std::mem::replace(&mut inner.steps, steps);
    let read = inner.read_groups(groups);
    inner.steps = steps;
    read?;
    inner.allocate_restored(py, &state)
}

/// Frees what `reserve` has allocated since it added to `before`, where no step has used it.
#[pyfunction]
fn release(engine: &Bound<'_, Engine>, before: Vec<usize>) -> PyResult<()> {
    let inner = &mut *engine.get().lock()?;
    for (parameter, before) in inner.parameters.iter_mut().zip(before) {
        let mut index = 0;
        parameter.slots.retain(|slot| {
            index += 1;
            index <= before || slot.started
        });
    }
    inner.written = OnceLock::new();
    Ok(())
}

/// Lets `fill` write the state arrays of optimizers, which were reserved, and other memory; then
/// sets what else the optimizers have, and makes the calls of `then`. Nothing is written where an
/// optimizer or the memory is in use. No signal is handled on the way.
#[pyfunction]
fn load(
    py: Python<'_>,
    parts: Vec<Part<'_>>,
    ranges: Vec<(usize, usize)>,
    fill: Then<'_>,
    then: Then<'_>,
) -> PyResult<()> {
    let mut locked = Vec::with_capacity(parts.len());
    let mut written: Vec<Range<usize>> = ranges.iter().map(|&(start, end)| start..end).collect();
    for (engine, state, ..) in &parts {
        let inner = engine.get().lock()?;
        if state.len() != inner.parameters.len() {
            return Err(PyValueError::new_err("parameters were added meanwhile"));
        }
        written.extend(inner.written().iter().cloned());
        locked.push(inner);
    }
    let _guard = inflight::enter(written, Vec::new())?;
    fill.run()?;
    for (inner, (_, state, steps, averaged)) in locked.iter_mut().zip(&parts) {
        let inner = &mut **inner;
        for (parameter, (step, scalars, names)) in inner.parameters.iter_mut().zip(state) {
            parameter.progress.steps = *step;
            for (own, new) in parameter.progress.scalars.iter_mut().zip(scalars) {
                *own = *new;
            }
            for slot in &mut parameter.slots {
                slot.started = names.iter().any(|name| name == slot.spec.name);
                if !slot.started {
                    slot.numbers.view(py)?.set_item(py.Ellipsis(), 0)?;
                    if let Some(scales) = &slot.scales {
                        scales.view(py)?.set_item(py.Ellipsis(), 0)?;
                    }
                }
            }
        }
        inner.steps = *steps;
        inner.averaged = *averaged;
    }
    then.run()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(reserve, module)?)?;
    module.add_function(wrap_pyfunction!(release, module)?)?;
    module.add_function(wrap_pyfunction!(load, module)?)
}
