//! The engine behind every optimizer class: parameters, state, and one call per step.

use std::ops::Range;

use fastoptim::clip;
use fastoptim::float::Float;
use fastoptim::hyper::{self, Spec, Value};
use fastoptim::optim::{Clock, Kind, Method};
use fastoptim::sweep::{self, Prepare, Segment};
use numpy::PyUntypedArray;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyList, PyString};

use crate::array::{Array, Dtype, check_disjoint};
use crate::error::to_py;
use crate::inflight;

/// One state array of a parameter.
struct Slot {
    name: &'static str,
    array: Py<PyUntypedArray>,
    /// Whether a step has written it, or a load.
    started: bool,
}

struct Parameter {
    name: String,
    array: Py<PyUntypedArray>,
    group: usize,
    step: u64,
    slots: Vec<Slot>,
}

/// Parameters in groups, with their state, under one kind of optimizer.
#[pyclass(module = "fastoptim._core")]
pub(crate) struct Engine {
    kind: Kind,
    parameters: Vec<Parameter>,
    groups: usize,
    /// Steps applied so far: what hyperparameters that are functions are called with.
    #[pyo3(get, set)]
    steps: u64,
}

/// What one step takes per parameter that has a gradient.
struct Task {
    index: usize,
    p: Memory,
    g: Memory,
    state: Vec<Memory>,
    clock: Clock,
}

/// An array's memory, checked; kept alive by the engine or the caller's frame.
#[derive(Clone)]
struct Memory {
    dtype: Dtype,
    data: *mut u8,
    len: usize,
    range: Range<usize>,
}

// SAFETY: plain addresses; the engine hands each to one segment of one step.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn of(array: &Array<'_>) -> Self {
        Self {
            dtype: array.dtype,
            data: array.data,
            len: array.len,
            range: array.range(),
        }
    }

    /// # Safety
    /// `T` is the type of `dtype`; alive and not written elsewhere for `'a`.
    unsafe fn slice<'a, T>(&self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: checked to be contiguous and aligned; the rest is the caller's word.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.len) }
    }

    /// # Safety
    /// As `slice`, and not read elsewhere either.
    unsafe fn slice_mut<'a, T>(&self) -> &'a mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `slice`.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.len) }
    }
}

fn parameter_array<'py>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let array = Array::new(name, object)?;
    if !matches!(array.dtype, Dtype::F32 | Dtype::F64) {
        return Err(PyTypeError::new_err(format!(
            "{name} must be float32 or float64, got {}",
            array.dtype
        )));
    }
    Ok(array)
}

/// A hyperparameter of a group as the core knows it; a function is called with the step count.
fn value(spec: &Spec, object: &Bound<'_, PyAny>, steps: u64) -> PyResult<Value> {
    let called;
    let object = if object.is_callable() {
        called = object.call1((steps,))?;
        &called
    } else {
        object
    };
    let wrong = |expected: &str| {
        PyTypeError::new_err(format!(
            "{} must be {expected}, got {}",
            spec.name,
            object.repr().map_or_else(|_| "?".into(), |r| r.to_string())
        ))
    };
    let number = |item: &Bound<'_, PyAny>| -> PyResult<f64> {
        if let Ok(x) = item.cast_exact::<PyFloat>() {
            return Ok(x.value());
        }
        if item.is_instance_of::<PyBool>() || item.is_instance_of::<PyString>() {
            return Err(wrong("a number"));
        }
        item.extract().map_err(|_| wrong("a number"))
    };
    Ok(match spec.kind {
        hyper::Kind::NonNegative => Value::Number(number(object)?),
        hyper::Kind::Decays => {
            let items: Vec<Bound<'_, PyAny>> =
                object.extract().map_err(|_| wrong("a pair of numbers"))?;
            let [a, b] = items.as_slice() else {
                return Err(wrong("a pair of numbers"));
            };
            Value::Pair([number(a)?, number(b)?])
        }
        hyper::Kind::Flag => Value::Flag(
            object
                .cast::<PyBool>()
                .map_err(|_| wrong("a bool"))?
                .is_true(),
        ),
        hyper::Kind::Word(_) => Value::Word(object.extract().map_err(|_| wrong("a string"))?),
    })
}

impl Engine {
    fn method(&self, group: &Bound<'_, PyDict>) -> PyResult<Method> {
        let specs = self.kind.specs();
        let mut values = Vec::with_capacity(specs.len());
        for spec in specs {
            let object = group.get_item(spec.name)?.ok_or_else(|| {
                PyValueError::new_err(format!("a parameter group lacks {:?}", spec.name))
            })?;
            values.push(value(spec, &object, self.steps)?);
        }
        self.kind.method(&values).map_err(to_py)
    }

    /// Allocates what the groups' hyperparameters ask for and the parameters lack. AMSGrad cannot
    /// be switched on once a parameter has stepped: its maximum would have missed the past.
    fn allocate(&mut self, py: Python<'_>, methods: &[Method]) -> PyResult<()> {
        for (group, method) in methods.iter().enumerate() {
            for &slot in method.state() {
                for dtype in [Dtype::F32, Dtype::F64] {
                    self.allocate_slab(py, group, slot, dtype)?;
                }
            }
        }
        Ok(())
    }

    fn allocate_slab(
        &mut self,
        py: Python<'_>,
        group: usize,
        slot: &'static str,
        dtype: Dtype,
    ) -> PyResult<()> {
        let mut lacking = Vec::new();
        let mut total = 0;
        for (index, parameter) in self.parameters.iter().enumerate() {
            if parameter.group != group || parameter.slots.iter().any(|s| s.name == slot) {
                continue;
            }
            let array = parameter_array(&parameter.name, parameter.array.bind(py))?;
            if array.dtype != dtype {
                continue;
            }
            if slot != "momentum_buffer" && parameter.step > 0 {
                return Err(PyValueError::new_err(format!(
                    "{slot} of parameter {:?} cannot start after its first step",
                    parameter.name
                )));
            }
            lacking.push((index, array.shape));
            total += array.len;
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let slab = py
            .import("fastoptim.buffer")?
            .getattr("aligned_zeros")?
            .call1((
                total,
                py.import("numpy")?
                    .getattr("dtype")?
                    .call1((dtype.to_string(),))?,
            ))?;
        let mut start = 0;
        for (index, shape) in lacking {
            let end = start + shape.iter().product::<usize>();
            let piece = slab.get_item(pyo3::types::PySlice::new(
                py,
                start as isize,
                end as isize,
                1,
            ))?;
            let view = piece.call_method1("reshape", (pyo3::types::PyTuple::new(py, shape)?,))?;
            let array = view.cast_into::<PyUntypedArray>()?.unbind();
            self.parameters[index].slots.push(Slot {
                name: slot,
                array,
                started: false,
            });
            start = end;
        }
        Ok(())
    }

    /// The methods of all groups, checked.
    fn methods(&self, groups: &Bound<'_, PyList>) -> PyResult<Vec<Method>> {
        if groups.len() != self.groups {
            return Err(PyValueError::new_err(
                "param_groups changed: use add_param_group",
            ));
        }
        groups
            .iter()
            .map(|group| self.method(group.cast::<PyDict>()?))
            .collect()
    }
}

/// Reads a number that a step option must be; `None` stays `None`.
fn option(
    name: &str,
    x: Option<f64>,
    allowed: impl Fn(f64) -> bool,
    range: &str,
) -> PyResult<Option<f64>> {
    match x {
        Some(x) if !allowed(x) => Err(PyValueError::new_err(format!(
            "{name} must be {range}, got {x}"
        ))),
        _ => Ok(x),
    }
}

#[pymethods]
impl Engine {
    #[new]
    fn new(kind: &str) -> PyResult<Self> {
        let kind = Kind::from_name(kind)
            .ok_or_else(|| PyValueError::new_err(format!("unknown optimizer {kind:?}")))?;
        Ok(Self {
            kind,
            parameters: Vec::new(),
            groups: 0,
            steps: 0,
        })
    }

    /// Adds a group and allocates its state; nothing is added where anything is wrong.
    fn add_group(
        &mut self,
        py: Python<'_>,
        group: &Bound<'_, PyDict>,
        names: Vec<String>,
        arrays: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let method = self.method(group)?;
        if arrays.is_empty() {
            return Err(PyValueError::new_err("params is empty"));
        }
        let mut ranges = Vec::new();
        let old: Vec<Array<'_>> = self
            .parameters
            .iter()
            .map(|p| parameter_array(&p.name, p.array.bind(py)))
            .collect::<PyResult<_>>()?;
        ranges.extend(
            self.parameters
                .iter()
                .zip(&old)
                .map(|(p, a)| (p.name.as_str(), a.range())),
        );
        let mut new = Vec::new();
        for (name, object) in names.iter().zip(&arrays) {
            if self.parameters.iter().any(|p| p.name == *name) {
                return Err(PyValueError::new_err(format!(
                    "parameter {name:?} is there already"
                )));
            }
            let array = parameter_array(&format!("params[{name:?}]"), object)?;
            array.require_writable(&format!("params[{name:?}]"))?;
            ranges.push((name, array.range()));
            new.push(array.object.clone().unbind());
        }
        check_disjoint(&ranges, &[])?;
        let before = self.parameters.len();
        for (name, array) in names.into_iter().zip(new) {
            let group = self.groups;
            self.parameters.push(Parameter {
                name,
                array,
                group,
                step: 0,
                slots: Vec::new(),
            });
        }
        for &slot in method.state() {
            for dtype in [Dtype::F32, Dtype::F64] {
                if let Err(error) = self.allocate_slab(py, self.groups, slot, dtype) {
                    self.parameters.truncate(before);
                    return Err(error);
                }
            }
        }
        self.groups += 1;
        Ok(())
    }

    /// One step over all groups. Returns the norm that clipping used.
    #[pyo3(signature = (groups, grads, loss_scale, max_norm, clip_value))]
    fn step(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        grads: &Bound<'_, PyAny>,
        loss_scale: f64,
        max_norm: Option<f64>,
        clip_value: Option<f64>,
    ) -> PyResult<Option<f64>> {
        option(
            "loss_scale",
            Some(loss_scale),
            |x| x > 0.0 && x.is_finite(),
            "finite and > 0",
        )?;
        let max_norm = option("max_norm", max_norm, |x| x > 0.0, "> 0")?;
        let clip_value = option("clip_value", clip_value, |x| x >= 0.0, ">= 0")?;
        let methods = self.methods(groups)?;
        let maximize = groups
            .iter()
            .map(
                |group| match group.cast::<PyDict>()?.get_item("maximize")? {
                    Some(flag) => flag
                        .cast::<PyBool>()
                        .map(|flag| flag.is_true())
                        .map_err(|_| PyTypeError::new_err("maximize must be a bool")),
                    None => Ok(false),
                },
            )
            .collect::<PyResult<Vec<bool>>>()?;

        // Every gradient is checked before anything is allocated or written.
        let grads: Vec<Bound<'_, PyAny>> = grads.extract()?;
        if grads.len() != self.parameters.len() {
            return Err(PyValueError::new_err(format!(
                "grads has {} arrays for {} parameters",
                grads.len(),
                self.parameters.len()
            )));
        }
        let mut pairs = Vec::with_capacity(grads.len());
        for (index, (parameter, grad)) in self.parameters.iter().zip(&grads).enumerate() {
            if grad.is_none() {
                continue;
            }
            let name = &parameter.name;
            let p = parameter_array(name, parameter.array.bind(py))?;
            if !p.writable {
                return Err(PyValueError::new_err(format!(
                    "parameter {name:?} is read-only"
                )));
            }
            let g = Array::new("grads", grad).map_err(|error| prefix(py, error, name))?;
            if g.dtype != p.dtype {
                return Err(PyTypeError::new_err(format!(
                    "grads[{name:?}] is {}, its parameter {}",
                    g.dtype, p.dtype
                )));
            }
            if g.shape != p.shape {
                return Err(PyValueError::new_err(format!(
                    "grads[{name:?}] has shape {:?}, its parameter {:?}",
                    g.shape, p.shape
                )));
            }
            pairs.push((index, Memory::of(&p), Memory::of(&g)));
        }
        self.allocate(py, &methods)?;

        let mut tasks = Vec::with_capacity(pairs.len());
        for (index, p, g) in pairs {
            let parameter = &self.parameters[index];
            let names = methods[parameter.group].state();
            let mut state = Vec::with_capacity(names.len());
            let mut fresh = true;
            for &name in names {
                let slot = parameter.slots.iter().find(|slot| slot.name == name);
                let slot = slot.expect("allocated above");
                fresh &= !slot.started;
                let array = Array::new(name, slot.array.bind(py))?;
                array.require_writable(name)?;
                state.push(Memory::of(&array));
            }
            let step = parameter.step.saturating_add(1);
            tasks.push(Task {
                index,
                p,
                g,
                state,
                clock: Clock { step, fresh },
            });
        }
        let mut written = Vec::with_capacity(2 * tasks.len());
        let mut read = Vec::with_capacity(tasks.len());
        for task in &tasks {
            let name = self.parameters[task.index].name.as_str();
            written.push((name, task.p.range.clone()));
            written.extend(task.state.iter().map(|s| (name, s.range.clone())));
            read.push(("grads", task.g.range.clone()));
        }
        check_disjoint(&written, &read)?;
        let guard = inflight::enter(
            written.into_iter().map(|(_, range)| range).collect(),
            read.into_iter().map(|(_, range)| range).collect(),
        )?;

        let owners: Vec<usize> = tasks
            .iter()
            .map(|t| self.parameters[t.index].group)
            .collect();
        let norm = py.detach(|| {
            let options = Options {
                scale: 1.0 / loss_scale,
                max_norm,
                clip_value,
            };
            execute(&methods, &maximize, &tasks, &owners, &options)
        });
        drop(guard);

        for task in &tasks {
            let parameter = &mut self.parameters[task.index];
            parameter.step = task.clock.step;
            for &name in methods[parameter.group].state() {
                for slot in parameter.slots.iter_mut().filter(|slot| slot.name == name) {
                    slot.started = true;
                }
            }
        }
        self.steps += 1;
        Ok(norm)
    }

    /// The steps of one parameter.
    fn parameter_step(&self, index: usize) -> u64 {
        self.parameters[index].step
    }

    /// The state arrays of one parameter by name, each with whether it holds anything yet.
    fn state(&self, py: Python<'_>, index: usize) -> Vec<(&'static str, Py<PyUntypedArray>, bool)> {
        let slots = &self.parameters[index].slots;
        slots
            .iter()
            .map(|slot| (slot.name, slot.array.clone_ref(py), slot.started))
            .collect()
    }

    /// Sets the count of one parameter and which of its state arrays hold something.
    fn set_counts(&mut self, index: usize, step: u64, started: Vec<String>) {
        let parameter = &mut self.parameters[index];
        parameter.step = step;
        for slot in &mut parameter.slots {
            slot.started = started.iter().any(|name| name == slot.name);
        }
    }
}

fn prefix(py: Python<'_>, error: PyErr, name: &str) -> PyErr {
    let message = error
        .value(py)
        .to_string()
        .replacen("grads", &format!("grads[{name:?}]"), 1);
    PyErr::from_type(error.get_type(py), message)
}

struct Options {
    scale: f64,
    max_norm: Option<f64>,
    clip_value: Option<f64>,
}

/// The step itself, without the interpreter: the norm where one is asked for, then the sweep.
fn execute(
    methods: &[Method],
    maximize: &[bool],
    tasks: &[Task],
    owners: &[usize],
    options: &Options,
) -> Option<f64> {
    let gradients: Vec<clip::Array<'_>> = match options.max_norm {
        None => Vec::new(),
        Some(_) => tasks
            .iter()
            // SAFETY: checked, alive and guarded for the length of this call.
            .map(|task| unsafe {
                match task.g.dtype {
                    Dtype::F32 => clip::Array::F32(task.g.slice()),
                    _ => clip::Array::F64(task.g.slice()),
                }
            })
            .collect(),
    };
    let bound = options.clip_value.unwrap_or(f64::INFINITY);
    let norm = options
        .max_norm
        .map(|_| clip::prepared_norm(&gradients, options.scale, bound));
    let coefficient = match (norm, options.max_norm) {
        (Some(norm), Some(max_norm)) => clip::coefficient(norm, max_norm),
        _ => 1.0,
    };
    let mut works = Vec::with_capacity(methods.len());
    for (group, method) in methods.iter().enumerate() {
        let sign = if maximize[group] { -1.0 } else { 1.0 };
        let prepare = Prepare {
            scale: sign * options.scale,
            clip_value: bound,
            coefficient,
            weight_decay: 0.0,
        };
        let members = |dtype| {
            tasks
                .iter()
                .zip(owners)
                .filter(move |(t, o)| **o == group && t.p.dtype == dtype)
        };
        works.push(
            method.plan(
                members(Dtype::F32)
                    .map(|(t, _)| segment::<f32>(t))
                    .collect(),
                prepare,
            ),
        );
        works.push(
            method.plan(
                members(Dtype::F64)
                    .map(|(t, _)| segment::<f64>(t))
                    .collect(),
                prepare,
            ),
        );
    }
    sweep::run(works);
    norm
}

fn segment<'a, T: Float>(task: &Task) -> Segment<'a, T> {
    // SAFETY: all arrays of a task have the dtype `T`, were checked to be disjoint, and are alive
    // and guarded while the step runs.
    unsafe {
        let state = task.state.iter().map(|memory| memory.slice_mut());
        Segment::new(task.p.slice_mut(), task.g.slice(), state, task.clock)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()?;
    let py = module.py();
    let specs = PyDict::new(py);
    for kind in Kind::ALL {
        let names: Vec<&str> = kind.specs().iter().map(|spec| spec.name).collect();
        specs.set_item(kind.name(), names)?;
    }
    module.add("HYPERPARAMETERS", specs)?;
    Ok(())
}
