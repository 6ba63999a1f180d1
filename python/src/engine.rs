//! The engine behind every optimizer class: parameters, state, and one call per step.

mod gradients;
mod state;
mod step;
mod targets;

use std::sync::OnceLock;

use fastoptim::optim::Kind;
use fastoptim::optim::schedule_free::blend;
use fastoptim::storage::Rounding;
use pyo3::exceptions::{PyFloatingPointError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use self::state::{Expected, Restored, Saved};
use self::step::{Options, Policy, execute, real, towards_average};
use self::targets::Targets;
use crate::array::{Dtype, Layout, check_disjoint, numbers, with_float};
use crate::commit::Then;
use crate::error::to_py;
use crate::group::{Group, Keys};
use crate::inflight::{self, Ranges};
use crate::parameter::{Parameter, Storage, slice_mut};

/// Parameters in groups, with their state, under one kind of optimizer.
#[pyclass(module = "fastoptim._core")]
pub(crate) struct Engine {
    keys: Keys,
    storage: Storage,
    groups: Vec<Group>,
    parameters: Vec<Parameter>,
    /// Whether the parameters are the views of one buffer, in order, without gaps.
    #[pyo3(get, set)]
    flat: bool,
    /// Whether schedule-free parameters are at their averaged iterate.
    #[pyo3(get)]
    averaged: bool,
    /// All memory that a step may write, sorted; made anew when there is more.
    written: OnceLock<Ranges>,
    /// Steps applied so far: what hyperparameters that are functions are called with.
    #[pyo3(get)]
    steps: u64,
}

impl Engine {
    /// Reads the groups anew, as far as they have changed.
    fn read_groups(&mut self, groups: &Bound<'_, PyList>) -> PyResult<()> {
        let refuse =
            || PyValueError::new_err("the params of param_groups changed: use add_param_group");
        if groups.len() != self.groups.len() {
            return Err(refuse());
        }
        let mut changed = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            if !self.keys.is_current(&self.groups[index], &group)? {
                let read = self.keys.read(&group, self.steps)?;
                if !read.params.is(&self.groups[index].params) {
                    return Err(refuse());
                }
                changed.push((index, read));
            }
        }
        for (index, group) in changed {
            self.groups[index] = group;
        }
        Ok(())
    }
}

#[pymethods]
impl Engine {
    #[new]
    fn new(
        py: Python<'_>,
        kind: &str,
        state_dtype: Option<&str>,
        rounding: &str,
        seed: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let kind = Kind::from_name(kind)
            .ok_or_else(|| PyValueError::new_err(format!("unknown optimizer {kind:?}")))?;
        let refuse = |name: &str, words: &str, got: &str| {
            let message = format!("{name} must be {words}, got {got:?}");
            Err(PyValueError::new_err(message))
        };
        let moments = match state_dtype {
            None => None,
            Some("float32") => Some(Dtype::F32),
            Some("bfloat16") => Some(Dtype::BF16),
            Some("int8") => Some(Dtype::I8),
            Some(got) => {
                let words = "'float32', 'bfloat16', 'int8' or None";
                return refuse("state_dtype", words, got);
            }
        };
        let stochastic = match rounding {
            "stochastic" => true,
            "nearest" => false,
            got => return refuse("rounding", "'stochastic' or 'nearest'", got),
        };
        if seed.is_instance_of::<pyo3::types::PyBool>() {
            return Err(PyTypeError::new_err("seed must be an integer, got a bool"));
        }
        let index = seed
            .call_method0("__index__")
            .map_err(|_| PyTypeError::new_err(format!("seed must be an integer, got {seed}")))?;
        let seed = index.extract::<u64>().map_err(|_| {
            PyValueError::new_err(format!("seed must be >= 0 and fit 64 bits, got {seed}"))
        })?;
        if moments == Some(Dtype::BF16) {
            py.import("ml_dtypes")?;
        }
        Ok(Self {
            keys: Keys::new(py, kind),
            storage: Storage {
                moments,
                stochastic,
                seed,
            },
            groups: Vec::new(),
            parameters: Vec::new(),
            flat: false,
            averaged: false,
            written: OnceLock::new(),
            steps: 0,
        })
    }

    /// Adds a group and allocates its state; nothing is added where anything is wrong.
    #[pyo3(signature = (group, names, arrays, then=None))]
    fn add_group(
        &mut self,
        py: Python<'_>,
        group: &Bound<'_, PyDict>,
        names: Vec<String>,
        arrays: Vec<Bound<'_, PyAny>>,
        then: Option<Then<'_>>,
    ) -> PyResult<()> {
        let read = self.keys.read(group, self.steps)?;
        if arrays.is_empty() {
            return Err(PyValueError::new_err("params is empty"));
        }
        let mut new = Vec::with_capacity(arrays.len());
        for (name, object) in names.iter().zip(&arrays) {
            let argument = format!("params[{name:?}]");
            if self.parameters.iter().any(|p| p.name == *name) {
                return Err(PyValueError::new_err(format!(
                    "{argument} is there already"
                )));
            }
            let array = numbers(&argument, object)?;
            array.require_writable(&argument)?;
            read.method.check_shape(&array.shape).map_err(to_py)?;
            new.push(Layout::of(&array));
        }
        let known = self
            .parameters
            .iter()
            .map(|p| (p.name.as_str(), p.layout.range()));
        let added = names.iter().zip(&new).map(|(n, l)| (n.as_str(), l.range()));
        check_disjoint(&known.chain(added).collect::<Vec<_>>(), &[])?;

        let before = self.parameters.len();
        let initial = read.method.scalars();
        let scalars = std::array::from_fn(|i| initial.get(i).map_or(0.0, |(_, x)| *x));
        for ((name, object), layout) in names.into_iter().zip(&arrays).zip(new) {
            self.parameters.push(Parameter {
                name,
                array: object.clone().unbind(),
                layout,
                group: self.groups.len(),
                step: 0,
                scalars,
                slots: Vec::new(),
            });
        }
        self.groups.push(read);
        if let Err(error) = self.allocate(py) {
            self.parameters.truncate(before);
            self.groups.pop();
            return Err(error);
        }
        self.flat = false;
        self.written = OnceLock::new();
        then.map_or(Ok(()), |then| then.run())
    }

    /// Moves the parameters of schedule-free groups from where gradients are taken to the averaged
    /// iterate, or back.
    fn average(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        averaged: bool,
    ) -> PyResult<()> {
        if averaged == self.averaged {
            return Ok(());
        }
        self.read_groups(groups)?;
        for parameter in &self.parameters {
            parameter.check(py)?;
        }
        let _guard = inflight::register(self.written(), Vec::new().into())?;
        for parameter in &self.parameters {
            let beta = self.groups[parameter.group].method.averaging();
            let (Some(beta), Some(z)) = (beta, parameter.slot("z")) else {
                continue;
            };
            if !z.started {
                continue;
            }
            let weight = if averaged {
                towards_average(beta)
            } else {
                1.0 - beta
            };
            with_float!(parameter.layout.dtype.arithmetic(), T => {
                // SAFETY: checked, disjoint, alive and registered.
                let (p, z) = unsafe {
                    (parameter.cells::<T>(|| Rounding::Nearest), z.cells(|| Rounding::Nearest))
                };
                py.detach(|| blend(p, z, weight));
            });
        }
        self.averaged = averaged;
        Ok(())
    }

    /// One step over all groups: whether it was applied, and the norm that clipping used; nothing
    /// where it was and no norm was asked for. The calls of `then` are made where it was applied.
    #[expect(clippy::too_many_arguments)]
    fn step(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        grads: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = real)] loss_scale: f64,
        #[pyo3(from_py_with = real)] max_norm: Option<f64>,
        #[pyo3(from_py_with = real)] clip_value: Option<f64>,
        nonfinite: &str,
        regularizer: Option<(f64, f64)>,
        average: Option<(Vec<Bound<'_, PyAny>>, f64)>,
        copy: Option<Vec<Bound<'_, PyAny>>>,
        zero_grad: bool,
        then: Option<Then<'_>>,
    ) -> PyResult<Option<(bool, Option<f64>)>> {
        let options = Options::new(loss_scale, max_norm, clip_value, nonfinite, regularizer)?;
        if self.averaged {
            return Err(PyRuntimeError::new_err(
                "the parameters are at their average for evaluation: call train() before step()",
            ));
        }
        self.read_groups(groups)?;
        let gradients = self.gradients(grads)?;
        let targets = Targets::new(
            &self.parameters,
            average.as_ref(),
            copy.as_deref(),
            zero_grad,
        )?;
        let written = self.written();
        let [written, read] = if targets.is_nothing() {
            let read = self.read(&gradients, &written)?;
            [written, read.into()]
        } else {
            if zero_grad {
                self.require_writable(&gradients)?;
            }
            for parameter in &self.parameters {
                parameter.check(py)?;
            }
            targets.disjoint(&written, &gradients)?
        };
        let guard = inflight::register(written, read)?;
        // Only now that nothing can be refused any more but the allocation itself. What it brings
        // is nobody else's yet.
        let grown = self.allocate(py)?;

        // SAFETY: checked above; the engine and the caller's frame keep all arrays alive, and
        // `guard` has their memory registered.
        let members = unsafe { self.members(&gradients, &targets) };
        let methods = &self.groups;
        let found = py.detach(|| execute(methods, members, &options));
        drop(guard);
        if let Some(index) = found.infinite {
            self.retract(&grown);
            let name = &self.parameters[index].name;
            return match options.nonfinite {
                Policy::Raise => Err(PyFloatingPointError::new_err(format!(
                    "grads[{name:?}] has elements that are not finite"
                ))),
                _ => Ok(Some((false, found.norm))),
            };
        }

        for (index, gradient) in gradients.arrays.iter().enumerate() {
            if gradient.is_none() {
                continue;
            }
            let clock = self.clock(&self.parameters[index]);
            let parameter = &mut self.parameters[index];
            let method = &self.groups[parameter.group].method;
            parameter.step = clock.step;
            parameter.scalars = method.advance(clock);
            let names = method.state(parameter.layout.shape.len());
            for slot in &mut parameter.slots {
                slot.started |= names.contains(&slot.name);
            }
        }
        // What a step finds over all parameters holds for all of them.
        if let Some(scalars) = found.scalars {
            for parameter in &mut self.parameters {
                parameter.scalars = scalars;
            }
        }
        self.steps = self.steps.saturating_add(1);
        if let Some(then) = then {
            then.run()?;
        }
        Ok(found.norm.map(|norm| (true, Some(norm))))
    }

    /// Sets every gradient to 0.
    fn zero_grad(&self, py: Python<'_>, grads: &Bound<'_, PyAny>) -> PyResult<()> {
        let gradients = self.gradients(grads)?;
        self.require_writable(&gradients)?;
        let zeroed = self.read(&gradients, &self.written())?;
        let _guard = inflight::enter(zeroed, Vec::new())?;
        py.detach(|| {
            for memory in gradients.arrays.iter().flatten() {
                let bytes = memory.len * memory.dtype.size();
                // SAFETY: checked, alive in the caller's frame, and registered; all bits 0 is 0.
                unsafe { slice_mut::<u8>(memory.data, bytes) }.fill(0);
            }
        });
        Ok(())
    }

    /// The steps of one parameter.
    fn parameter_step(&self, index: usize) -> u64 {
        self.parameters[index].step
    }

    /// The numbers in the state of one parameter beside its step.
    fn scalars(&self, index: usize) -> Vec<(&'static str, f64)> {
        self.numbers(index)
    }

    /// Views of the state arrays of one parameter by name, each with whether it holds anything yet.
    fn state<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Vec<(String, Bound<'py, PyAny>, bool)>> {
        self.views(py, index)
    }

    /// A copy of the state of all parameters at one moment; none of one that no step has touched.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Vec<Option<Saved<'py>>>> {
        self.copies(py)
    }

    /// What the state of each parameter may be under other groups after `steps` steps.
    fn expected(&self, groups: Vec<Bound<'_, PyAny>>, steps: u64) -> PyResult<Vec<Expected>> {
        let read = |group| self.keys.read(group, steps);
        let groups: Vec<Group> = groups.iter().map(read).collect::<PyResult<_>>()?;
        Ok(self.expect(&groups))
    }

    /// Takes over groups and state that are what `expected` asks for. State arrays that are not
    /// given hold nothing.
    #[pyo3(signature = (groups, state, steps, averaged, then=None))]
    fn restore(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        state: Vec<Restored<'_>>,
        steps: u64,
        averaged: bool,
        then: Option<Then<'_>>,
    ) -> PyResult<()> {
        self.take_over(py, groups, state, steps)?;
        self.averaged = averaged;
        then.map_or(Ok(()), |then| then.run())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()?;
    Ok(())
}
