//! Loading from a file directly into the memory of optimizers and other objects.

use std::ops::Range;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::engine::Engine;
use super::state::Restored;
use crate::memory::inflight;
use crate::memory::items::Items;
use crate::runtime::commit::Then;

/// An optimizer and its new state: for each parameter the steps, the scalars and the names of its
/// state arrays; then the number of steps applied, and whether it is at its average.
type Part<'py> = (
    Bound<'py, Engine>,
    Items<(u64, Items<f64>, Items<String>)>,
    u64,
    bool,
);

/// Allocates the zeroed state arrays of a state that conforms to `expected`, and appends to
/// `before` the number of arrays that each parameter had.
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

/// Frees the state arrays that `reserve` allocated after `before`, unless a step has used them.
#[pyfunction]
fn release(engine: &Bound<'_, Engine>, before: Items<usize>) -> PyResult<()> {
    let inner = &mut *engine.get().lock()?;
    for (parameter, before) in inner.parameters.iter_mut().zip(before) {
        let mut index = 0;
        parameter.slots.retain(|slot| {
            index += 1;
            index <= before || slot.started
        });
    }
    inner.reset();
    Ok(())
}

/// Calls `fill`, which writes the reserved state arrays of optimizers and other memory, then sets
/// the other state of the optimizers and makes the calls of `then`. Writes nothing if an optimizer
/// or the memory is in use. No signal is handled during the call.
#[pyfunction]
fn load(
    py: Python<'_>,
    parts: Items<Part<'_>>,
    ranges: Items<(usize, usize)>,
    fill: Then<'_>,
    then: Then<'_>,
) -> PyResult<()> {
    let mut locked = Vec::with_capacity(parts.len());
    let mut written: Vec<Range<usize>> = ranges.iter().map(|&(start, end)| start..end).collect();
    for (engine, state, ..) in parts.iter() {
        let inner = engine.get().lock()?;
        if state.len() != inner.parameters.len() {
            return Err(PyValueError::new_err("parameters were added meanwhile"));
        }
        written.extend(inner.written().iter().cloned());
        locked.push(inner);
    }
    let _guard = inflight::enter(written, Vec::new())?;
    fill.run()?;
    for (inner, (_, state, steps, averaged)) in locked.iter_mut().zip(parts.iter()) {
        let inner = &mut **inner;
        inner.reset();
        for (parameter, (step, scalars, names)) in inner.parameters.iter_mut().zip(state.iter()) {
            parameter.progress.steps = *step;
            for (own, new) in parameter.progress.scalars.iter_mut().zip(scalars.iter()) {
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
