//! A consistent state of several optimizers, protected from writes while it is saved.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::engine::Engine;
use super::state::Saved;
use crate::memory::inflight::{self, Guard, POLL};
use crate::memory::items::Items;

/// Memory protected from writes between `enter` and `close`: a step that uses it raises
/// RuntimeError.
#[pyclass(module = "fastoptim._core", frozen)]
struct Hold(Mutex<Vec<Guard>>);

/// The steps of an optimizer, whether it is at its average, and views of the state of its
/// parameters.
type Moment<'py> = (u64, bool, Vec<Option<Saved<'py>>>);

#[pymethods]
impl Hold {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Waits for calls that write the state of these optimizers or the given ranges of addresses,
    /// and rejects new ones. The ranges include the parameters of the optimizers.
    fn enter<'py>(
        &self,
        py: Python<'py>,
        optimizers: Items<(Bound<'py, Engine>, Bound<'py, PyList>)>,
        ranges: Items<(usize, usize)>,
    ) -> PyResult<Vec<Moment<'py>>> {
        let ranges = ranges.into_iter().map(|(start, end)| start..end).collect();
        // While the parameters are registered, no new step passes its checks, so the engines become
        // unlocked.
        let mut guards = vec![inflight::wait_to_read(py, ranges)?];
        let mut moments = Vec::new();
        for (engine, groups) in optimizers.iter() {
            let engine = engine.get();
            while engine.is_busy_elsewhere() {
                py.check_signals()?;
                py.detach(|| thread::sleep(POLL));
            }
            let inner = engine.lock()?;
            inner.check_groups(groups.iter())?;
            guards.push(inflight::enter(Vec::new(), inner.written().to_vec())?);
            moments.push((inner.steps, inner.averaged, inner.saved(py)?));
        }
        self.guards().append(&mut guards);
        Ok(moments)
    }

    fn close(&self) {
        let guards = std::mem::take(&mut *self.guards());
        drop(guards);
    }
}

impl Hold {
    fn guards(&self) -> MutexGuard<'_, Vec<Guard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Hold>()
}
