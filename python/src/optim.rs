//! The engine behind every optimizer class: parameters, state, and one call per step.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use fastoptim::clip;
use fastoptim::factor::Factor;
use fastoptim::float::Float;
use fastoptim::optim::Kind;
use fastoptim::optim::schedule_free::blend;
use fastoptim::prepare::Prepare;
use fastoptim::segment::{Clock, MAX_SCALARS, Segment};
use fastoptim::work::{self, Work};
use numpy::PyUntypedArray;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice, PyTuple};

use crate::array::{Address, Array, Dtype, Layout, check_disjoint, floats, matching, with_float};
use crate::error::to_py;
use crate::group::{Group, Keys};
use crate::inflight::{self, Ranges};
use crate::parameter::{Parameter, Slot, slab, slice_mut};

/// Parameters in groups, with their state, under one kind of optimizer.
#[pyclass(module = "fastoptim._core")]
pub(crate) struct Engine {
    keys: Keys,
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

    /// The gradients in the order of the parameters, each checked against its own, and whether they
    /// are one array.
    fn gradients(&self, grads: &Bound<'_, PyAny>) -> PyResult<(Vec<Option<Address>>, bool)> {
        let py = grads.py();
        if self.flat
            && let Some(first) = self.parameters.first()
            && let Ok(array) = grads.cast::<PyUntypedArray>()
        {
            let dtype = first.layout.dtype;
            let len = self.parameters.iter().map(|p| p.layout.len).sum();
            let Address(data) = matching(|| "grads".into(), array, dtype, &[len])?;
            let mut offset = 0;
            let place = |parameter: &Parameter| {
                parameter.check(py)?;
                let data = data.wrapping_add(offset);
                offset += parameter.layout.range().len();
                Ok(Some(Address(data)))
            };
            let places = self.parameters.iter().map(place);
            return Ok((places.collect::<PyResult<_>>()?, true));
        }
        let grads: Vec<Bound<'_, PyAny>> = grads.extract()?;
        if grads.len() != self.parameters.len() {
            return Err(PyValueError::new_err(format!(
                "grads has {} arrays for {} parameters",
                grads.len(),
                self.parameters.len()
            )));
        }
        let pairs = self.parameters.iter().zip(&grads);
        let gradients = pairs.map(|(parameter, grad)| {
            if grad.is_none() {
                return Ok(None);
            }
            parameter.check(py)?;
            let name = || format!("grads[{:?}]", parameter.name);
            let Layout { dtype, shape, .. } = &parameter.layout;
            matching(name, grad, *dtype, shape).map(Some)
        });
        Ok((gradients.collect::<PyResult<_>>()?, false))
    }

    /// Allocates what the hyperparameters ask for and the parameters lack, all or nothing. Most
    /// state cannot start late: AMSGrad's maximum would have missed the past.
    fn allocate(&mut self, py: Python<'_>) -> PyResult<()> {
        let mut lacking = Vec::new();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let method = &self.groups[parameter.group].method;
            for &name in method.state(parameter.layout.shape.len()) {
                if parameter.slot(name).is_some() {
                    continue;
                }
                if parameter.step > 0 && name != "momentum_buffer" {
                    return Err(PyValueError::new_err(format!(
                        "{name} of parameter {:?} cannot start after its first step",
                        parameter.name
                    )));
                }
                lacking.push((index, name));
            }
        }
        self.add_slots(py, &lacking)
    }

    /// Allocates state arrays of parameters by their index.
    fn add_slots(&mut self, py: Python<'_>, lacking: &[(usize, &'static str)]) -> PyResult<()> {
        let describe = |&(index, name): &(usize, &'static str)| {
            let parameter = &self.parameters[index];
            let method = &self.groups[parameter.group].method;
            let shape = method.state_shape(name, &parameter.layout.shape);
            (name, parameter.layout.dtype, index, shape)
        };
        let mut lacking: Vec<_> = lacking.iter().map(describe).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        // One slab per name and dtype; the sort is stable, so parameters keep their order in it.
        lacking.sort_by_key(|&(name, dtype, ..)| (name, dtype.to_string()));
        let mut slots = Vec::with_capacity(lacking.len());
        for run in lacking.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let size = |shape: &[usize]| shape.iter().product::<usize>();
            let (name, dtype, ..) = run[0];
            let total = run.iter().map(|(.., shape)| size(shape)).sum();
            let slab = slab(py, total, dtype)?;
            let mut start = 0;
            for (_, _, index, shape) in run {
                let end = start + size(shape);
                let piece = slab.get_item(PySlice::new(py, start as isize, end as isize, 1))?;
                let view = piece.call_method1("reshape", (PyTuple::new(py, shape)?,))?;
                let array = Array::new(name, &view)?;
                slots.push((
                    *index,
                    Slot {
                        name,
                        data: Address(array.data),
                        len: array.len,
                        slab: slab.as_ptr().addr(),
                        array: array.object.unbind(),
                        started: false,
                    },
                ));
                start = end;
            }
        }
        for (index, slot) in slots {
            self.parameters[index].slots.push(slot);
        }
        self.written = OnceLock::new();
        Ok(())
    }

    /// Allocates what the hyperparameters ask for and what a restored state has.
    fn make_room(&mut self, py: Python<'_>, state: &[Restored<'_>]) -> PyResult<()> {
        let mut lacking = Vec::new();
        for (index, (parameter, (_, _, arrays))) in self.parameters.iter().zip(state).enumerate() {
            let method = &self.groups[parameter.group].method;
            let needed = method.state(parameter.layout.shape.len());
            let others = method.optional_state();
            let given = |name: &&&str| arrays.contains_key(**name) && !needed.contains(name);
            let names = needed.iter().chain(others.iter().filter(given));
            let lacks = names.filter(|name| parameter.slot(name).is_none());
            lacking.extend(lacks.map(|&name| (index, name)));
        }
        self.add_slots(py, &lacking)
    }

    /// All memory that a step may write, by address.
    fn written(&self) -> Ranges {
        let parameters = &self.parameters;
        let make = || {
            let mut ranges = Vec::with_capacity(parameters.len());
            for parameter in parameters {
                let size = parameter.layout.dtype.size();
                let state = parameter.slots.iter().map(|slot| {
                    let start = slot.data.0.addr();
                    start..start + slot.len * size
                });
                ranges.extend(state.chain([parameter.layout.range()]));
            }
            ranges.retain(|range| !range.is_empty());
            ranges.sort_unstable_by_key(|range| range.start);
            // They do not overlap; those that touch become one.
            ranges.dedup_by(|next, last| {
                let touch = last.end == next.start;
                if touch {
                    last.end = next.end;
                }
                touch
            });
            ranges.into()
        };
        Arc::clone(self.written.get_or_init(make))
    }

    /// The memory of the gradients, none of which is written.
    fn read(
        &self,
        gradients: &[Option<Address>],
        flat: bool,
        written: &[Range<usize>],
    ) -> PyResult<Vec<Range<usize>>> {
        let mut read: Vec<Range<usize>> =
            Vec::with_capacity(if flat { 1 } else { gradients.len() });
        for (parameter, data) in self.parameters.iter().zip(gradients) {
            let Some(data) = data else { continue };
            let start = data.0.addr();
            let end = start + parameter.layout.range().len();
            match read.last_mut() {
                Some(last) if flat => last.end = end,
                _ => read.push(start..end),
            }
        }
        for range in &read {
            let next = written.partition_point(|other| other.end <= range.start);
            if next < written.len() && written[next].start < range.end && !range.is_empty() {
                return Err(self.shared(&written[next], range, gradients));
            }
        }
        Ok(read)
    }

    /// The error that names what shares memory.
    fn shared(
        &self,
        written: &Range<usize>,
        read: &Range<usize>,
        gradients: &[Option<Address>],
    ) -> PyErr {
        let start = written.start.max(read.start);
        let owner = self.parameters.iter().find_map(|p| {
            let of = |data: Address, len: usize, what: String| {
                let from = data.0.addr();
                (from..from + len * p.layout.dtype.size())
                    .contains(&start)
                    .then_some(what)
            };
            let state = p.slots.iter().find_map(|slot| {
                of(
                    slot.data,
                    slot.len,
                    format!("{} of {:?}", slot.name, p.name),
                )
            });
            of(p.layout.data, p.layout.len, format!("params[{:?}]", p.name)).or(state)
        });
        let grad = self.parameters.iter().zip(gradients).find_map(|(p, data)| {
            let from = (*data)?.0.addr();
            let held = from..from + p.layout.range().len();
            held.contains(&start)
                .then(|| format!("grads[{:?}]", p.name))
        });
        PyValueError::new_err(format!(
            "{} and {} share memory",
            owner.unwrap_or_else(|| "params".into()),
            grad.unwrap_or_else(|| "grads".into())
        ))
    }

    /// The clock of a parameter in this step.
    fn clock(&self, parameter: &Parameter) -> Clock {
        let names = self.groups[parameter.group]
            .method
            .state(parameter.layout.shape.len());
        let started = |&&name: &&&str| parameter.slot(name).is_some_and(|slot| slot.started);
        Clock {
            step: parameter.step.saturating_add(1),
            fresh: !names.iter().any(|name| started(&name)),
            scalars: parameter.scalars,
        }
    }

    /// The segments of one group and type.
    ///
    /// # Safety
    /// Everything is checked, and its memory is alive and registered while the result lives.
    unsafe fn segments<T: Float>(
        &self,
        group: usize,
        dtype: Dtype,
        gradients: &[Option<Address>],
        flat: bool,
    ) -> Vec<Segment<'_, T>> {
        let mut segments = Vec::new();
        let mut slabs: Vec<usize> = Vec::new();
        for (parameter, g) in self.parameters.iter().zip(gradients) {
            let layout = &parameter.layout;
            let (Some(g), true) = (g, parameter.group == group && layout.dtype == dtype) else {
                continue;
            };
            let names = self.groups[group].method.state(layout.shape.len());
            let slots = || names.iter().filter_map(|name| parameter.slot(name));
            // SAFETY: the caller's word; the lengths are the arrays' own.
            let segment = unsafe {
                Segment::new(
                    slice_mut(layout.data, layout.len),
                    slice_mut(*g, layout.len),
                    &layout.shape,
                    slots().map(|slot| slice_mut(slot.data, slot.len)),
                    self.clock(parameter),
                )
            };
            let same = slots().map(|slot| slot.slab).eq(slabs.iter().copied());
            slabs.clear();
            slabs.extend(slots().map(|slot| slot.slab));
            segments.push(if flat && same && !segments.is_empty() {
                // SAFETY: parameters and gradients are each views of one buffer, and so are the
                // state arrays of each name; the pointers came from NumPy, not from slices.
                unsafe { segment.follows() }
            } else {
                segment
            });
        }
        segments
    }
}

/// The options of one step, checked.
struct Options {
    scale: Factor,
    max_norm: Option<f64>,
    clip_value: f64,
}

impl Options {
    fn new(loss_scale: f64, max_norm: Option<f64>, clip_value: Option<f64>) -> PyResult<Self> {
        let refuse = |name: &str, range: &str, x: f64| {
            Err(PyValueError::new_err(format!(
                "{name} must be {range}, got {x}"
            )))
        };
        if !(loss_scale > 0.0 && loss_scale.is_finite()) {
            return refuse("loss_scale", "finite and > 0", loss_scale);
        }
        match (max_norm, clip_value) {
            (Some(x), _) if x.is_nan() || x <= 0.0 => refuse("max_norm", "> 0", x),
            (_, Some(x)) if x.is_nan() || x < 0.0 => refuse("clip_value", ">= 0", x),
            _ => Ok(Self {
                scale: Factor::quotient(1.0, loss_scale),
                max_norm,
                clip_value: clip_value.unwrap_or(f64::INFINITY),
            }),
        }
    }
}

/// The segments of one group, by type.
struct Members<'a> {
    single: Vec<Segment<'a, f32>>,
    double: Vec<Segment<'a, f64>>,
}

/// What one step found.
struct Found {
    norm: Option<f64>,
    /// The numbers in the state, where the step itself has found them.
    scalars: Option<[f64; MAX_SCALARS]>,
}

/// The step itself, without the interpreter: the norm where one is asked for, then the sweep.
fn execute(groups: &[Group], members: Vec<Members<'_>>, options: &Options) -> Found {
    let norm = options.max_norm.map(|_| {
        let mut gradients = Vec::new();
        for group in &members {
            let single = group.single.iter().map(|s| clip::Array::F32(s.gradient()));
            let double = group.double.iter().map(|s| clip::Array::F64(s.gradient()));
            gradients.extend(single.chain(double));
        }
        clip::prepared_norm(&gradients, options.scale, options.clip_value)
    });
    let coefficient = match (norm, options.max_norm) {
        (Some(norm), Some(max_norm)) => clip::coefficient(norm, max_norm),
        _ => Factor::ONE,
    };
    let mut works: Vec<Box<dyn Work + '_>> = Vec::with_capacity(groups.len());
    for (group, members) in groups.iter().zip(members) {
        let scale = if group.maximize {
            options.scale.negated()
        } else {
            options.scale
        };
        let prepare = Prepare {
            scale,
            clip_value: options.clip_value,
            coefficient,
            weight_decay: 0.0,
        };
        if !members.single.is_empty() {
            works.push(group.method.plan(members.single, prepare));
        }
        if !members.double.is_empty() {
            works.push(group.method.plan(members.double, prepare));
        }
    }
    let scalars = work::run(works).iter().find_map(|work| work.scalars());
    Found { norm, scalars }
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, kind: &str) -> PyResult<Self> {
        let kind = Kind::from_name(kind)
            .ok_or_else(|| PyValueError::new_err(format!("unknown optimizer {kind:?}")))?;
        Ok(Self {
            keys: Keys::new(py, kind),
            groups: Vec::new(),
            parameters: Vec::new(),
            flat: false,
            averaged: false,
            written: OnceLock::new(),
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
            let array = floats(&argument, object)?;
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
        Ok(())
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
                1.0 - 1.0 / beta
            } else {
                1.0 - beta
            };
            let (p, z, n) = (parameter.layout.data, z.data, z.len);
            with_float!(parameter.layout.dtype, T => {
                // SAFETY: checked, disjoint, alive and registered.
                let (p, z) = unsafe { (slice_mut::<T>(p, n), slice_mut::<T>(z, n)) };
                py.detach(|| blend(p, z, weight));
            });
        }
        self.averaged = averaged;
        Ok(())
    }

    /// One step over all groups. Returns the norm that clipping used.
    fn step(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        grads: &Bound<'_, PyAny>,
        loss_scale: f64,
        max_norm: Option<f64>,
        clip_value: Option<f64>,
    ) -> PyResult<Option<f64>> {
        let options = Options::new(loss_scale, max_norm, clip_value)?;
        if self.averaged {
            return Err(PyRuntimeError::new_err(
                "the parameters are at their average for evaluation: call train() before step()",
            ));
        }
        self.read_groups(groups)?;
        let (gradients, flat) = self.gradients(grads)?;
        let written = self.written();
        let read = self.read(&gradients, flat, &written)?;
        let guard = inflight::register(written, read.into())?;
        // Only now that nothing can be refused any more but the allocation itself. What it brings
        // is nobody else's yet.
        self.allocate(py)?;

        let members = (0..self.groups.len())
            .map(|group| {
                // SAFETY: checked above; the engine and the caller's frame keep all arrays alive,
                // and `guard` has their memory registered.
                unsafe {
                    Members {
                        single: self.segments(group, Dtype::F32, &gradients, flat),
                        double: self.segments(group, Dtype::F64, &gradients, flat),
                    }
                }
            })
            .collect();
        let methods = &self.groups;
        let found = py.detach(|| execute(methods, members, &options));
        drop(guard);

        for (index, gradient) in gradients.iter().enumerate() {
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
        Ok(found.norm)
    }

    /// Sets every gradient to 0.
    fn zero_grad(&self, py: Python<'_>, grads: &Bound<'_, PyAny>) -> PyResult<()> {
        let (gradients, flat) = self.gradients(grads)?;
        let refuse_read_only = |name: &str, grad: &Bound<'_, PyAny>| {
            if grad.is_none() {
                return Ok(());
            }
            Array::new(name, grad)?.require_writable(name)
        };
        if flat {
            refuse_read_only("grads", grads)?;
        } else {
            let grads: Vec<Bound<'_, PyAny>> = grads.extract()?;
            for (parameter, grad) in self.parameters.iter().zip(&grads) {
                refuse_read_only(&format!("grads[{:?}]", parameter.name), grad)?;
            }
        }
        let written = self.written();
        let zeroed = self.read(&gradients, flat, &written)?;
        let _guard = inflight::enter(zeroed, Vec::new())?;
        py.detach(|| {
            for (parameter, data) in self.parameters.iter().zip(gradients) {
                let Some(data) = data else { continue };
                with_float!(parameter.layout.dtype, T => {
                    // SAFETY: checked, alive in the caller's frame, and registered.
                    unsafe { slice_mut::<T>(data, parameter.layout.len) }.fill(0.0);
                });
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
        let parameter = &self.parameters[index];
        let names = self.groups[parameter.group].method.scalars();
        let numbers = parameter.scalars;
        names
            .iter()
            .zip(numbers)
            .map(|((name, _), x)| (*name, x))
            .collect()
    }

    /// Views of the state arrays of one parameter by name, each with whether it holds anything yet.
    fn state<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Vec<(&'static str, Bound<'py, PyAny>, bool)>> {
        let slots = self.parameters[index].slots.iter();
        slots
            .map(|slot| {
                let view = slot.array.bind(py).call_method0("view")?;
                Ok((slot.name, view, slot.started))
            })
            .collect()
    }

    /// A copy of the state of all parameters at one moment; none of one that no step has touched.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Vec<Option<Saved<'py>>>> {
        let _guard = inflight::register(Vec::new().into(), self.written())?;
        let copy = |(index, parameter): (usize, &Parameter)| {
            let started = self.state(py, index)?.into_iter().filter(|slot| slot.2);
            let arrays: Vec<_> = started
                .map(|(name, view, _)| Ok((name, view.call_method0("copy")?)))
                .collect::<PyResult<_>>()?;
            let scalars = self.scalars(index);
            let initial = self.groups[parameter.group].method.scalars();
            let touched = parameter.step > 0 || !arrays.is_empty() || scalars != initial;
            Ok(touched.then_some((parameter.step, scalars, arrays)))
        };
        self.parameters.iter().enumerate().map(copy).collect()
    }

    /// What the state of each parameter may be under other groups after `steps` steps.
    fn expected(&self, groups: Vec<Bound<'_, PyAny>>, steps: u64) -> PyResult<Vec<Expected>> {
        let read = |group| self.keys.read(group, steps);
        let groups: Vec<Group> = groups.iter().map(read).collect::<PyResult<_>>()?;
        let expect = |parameter: &Parameter| {
            let method = &groups[parameter.group].method;
            let layout = &parameter.layout;
            let needed = method.state(layout.shape.len());
            let others = method.optional_state();
            let others = others.iter().filter(|name| !needed.contains(name));
            let slot = |name: &&'static str, needed| {
                let shape = method.state_shape(name, &layout.shape);
                (*name, layout.dtype.to_string(), shape, needed)
            };
            let arrays = needed.iter().map(|name| slot(name, true));
            let arrays = arrays.chain(others.map(|name| slot(name, false)));
            (method.scalars(), arrays.collect())
        };
        Ok(self.parameters.iter().map(expect).collect())
    }

    /// Takes over groups and state that are what `expected` asks for. State arrays that are not
    /// given hold nothing.
    fn restore(
        &mut self,
        py: Python<'_>,
        groups: &Bound<'_, PyList>,
        state: Vec<Restored<'_>>,
        steps: u64,
        averaged: bool,
    ) -> PyResult<()> {
        let _guard = inflight::register(self.written(), Vec::new().into())?;
        let before = std::mem::replace(&mut self.steps, steps);
        let ready = self
            .read_groups(groups)
            .and_then(|()| self.make_room(py, &state));
        if let Err(error) = ready {
            self.steps = before;
            return Err(error);
        }
        for (parameter, (step, scalars, arrays)) in self.parameters.iter_mut().zip(state) {
            parameter.step = step;
            for (own, new) in parameter.scalars.iter_mut().zip(scalars) {
                *own = new;
            }
            for slot in &mut parameter.slots {
                let given = arrays.get(slot.name);
                slot.started = given.is_some();
                let array = slot.array.bind(py);
                match given {
                    Some(given) => array.set_item(py.Ellipsis(), given)?,
                    None => array.set_item(py.Ellipsis(), 0)?,
                }
            }
        }
        self.averaged = averaged;
        Ok(())
    }
}

/// The state of one parameter as a copy: its steps, its numbers and its arrays by name.
type Saved<'py> = (
    u64,
    Vec<(&'static str, f64)>,
    Vec<(&'static str, Bound<'py, PyAny>)>,
);

/// What the state of one parameter may be: its numbers with what they are at first, and its arrays
/// with dtype, shape and whether a step needs them.
type Expected = (
    Vec<(&'static str, f64)>,
    Vec<(&'static str, String, Vec<usize>, bool)>,
);

/// The state of one parameter to take over.
type Restored<'py> = (u64, Vec<f64>, HashMap<String, Bound<'py, PyAny>>);

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()?;
    Ok(())
}
