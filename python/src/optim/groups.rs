//! The groups, which are added once and read by every step.

use std::collections::HashSet;

use fastoptim::step::{PART, Progress};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::parameter_set::ParameterSet;
use crate::error::to_py;
use crate::memory::items::Items;
use crate::memory::numpy::{Layout, check_disjoint, numbers};
use crate::optim::parameter::{Parameter, Part};

impl ParameterSet {
    /// Checks that the groups are those that were added, in the same order.
    pub(super) fn check_groups<'py>(
        &self,
        groups: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        if groups.len() != self.groups.len() {
            return Err(PyValueError::new_err(format!(
                "param_groups has {} groups, and {} were added: add_param_group adds one, and none \
                 can be removed",
                groups.len(),
                self.groups.len()
            )));
        }
        let mut groups = groups.enumerate();
        groups.try_for_each(|(index, group)| self.check_group(index, &group))
    }

    /// Checks that a group has the parameters that were added with it.
    fn check_group(&self, index: usize, group: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.keys.params(group)?.is(&self.groups[index].params) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "the params of param_groups[{index}] are not those that were added there: groups can \
             be neither reordered nor given other params"
        )))
    }

    /// Reads the groups that have changed.
    pub(super) fn read_groups(&mut self, groups: &Bound<'_, PyList>) -> PyResult<()> {
        let mut changed = Vec::new();
        if groups.len() != self.groups.len() {
            self.check_groups(groups.iter())?;
        }
        for (index, (known, group)) in self.groups.iter().zip(groups).enumerate() {
            // `is_current` compares the parameters, too.
            if !known.is_current(&group)? {
                self.check_group(index, &group)?;
                changed.push((index, self.keys.read(&group, self.steps)?));
            }
        }
        if !changed.is_empty() {
            // A hyperparameter that is a function may have changed the groups.
            self.check_groups(groups.iter())?;
            self.allocated = false;
        }
        for (index, group) in changed {
            self.groups[index] = group;
        }
        Ok(())
    }

    /// Adds a group and allocates its state. Adds nothing on error. `flat` says that the arrays are
    /// those of one buffer.
    pub(super) fn add_group(
        &mut self,
        py: Python<'_>,
        group: &Bound<'_, PyDict>,
        names: Items<String>,
        arrays: &[Bound<'_, PyAny>],
        flat: bool,
    ) -> PyResult<()> {
        let read = self.keys.read(group, self.steps)?;
        if names.len() != arrays.len() {
            return Err(PyValueError::new_err(format!(
                "params has {} arrays for {} names",
                arrays.len(),
                names.len()
            )));
        }
        if arrays.is_empty() {
            return Err(PyValueError::new_err("params is empty"));
        }
        let mut new = Vec::with_capacity(arrays.len());
        let mut seen = HashSet::with_capacity(arrays.len());
        for (name, object) in names.iter().zip(arrays) {
            let argument = format!("params[{name:?}]");
            if !seen.insert(name) || self.parameters.iter().any(|p| p.name == *name) {
                return Err(PyValueError::new_err(format!(
                    "{argument} is there already"
                )));
            }
            let array = numbers(&argument, object)?;
            array.require_writable(&argument)?;
            read.method.check_shape(&array.shape).map_err(to_py)?;
            new.push(Layout::of(&array));
        }
        if flat {
            check_flat(&new)?;
        }
        let known = self
            .parameters
            .iter()
            .map(|p| (p.name.as_str(), p.layout.range()));
        let added = names.iter().zip(&new).map(|(n, l)| (n.as_str(), l.range()));
        check_disjoint(&known.chain(added).collect::<Vec<_>>(), &[])?;

        let before = self.parameters.len();
        let mut parts = Vec::with_capacity(new.len());
        for (index, layout) in (before..).zip(&new) {
            let part = self.part(index, layout)?;
            if let Some(part) = &part {
                read.method.check_shape(&part.shape).map_err(to_py)?;
            }
            parts.push(part);
        }
        let progress = Progress::new(&read.method);
        let arrays = arrays.iter().zip(parts);
        for ((name, (object, part)), layout) in names.into_iter().zip(arrays).zip(new) {
            self.parameters.push(Parameter {
                name,
                array: object.clone().unbind(),
                layout,
                part,
                group: self.groups.len(),
                progress,
                slots: Vec::new(),
            });
        }
        self.groups.push(read);
        self.reset();
        if let Err(error) = self.allocate(py) {
            self.parameters.truncate(before);
            self.groups.pop();
            return Err(error);
        }
        self.flat = flat && before == 0;
        Ok(())
    }
}

impl ParameterSet {
    /// Returns the part of a parameter that this process has.
    fn part(&self, index: usize, layout: &Layout) -> PyResult<Option<Part>> {
        let Some(parts) = &self.parts else {
            return Ok(None);
        };
        let Some(elements) = parts.get(index) else {
            return Err(PyValueError::new_err(
                "the parameters of a sharded optimizer are those of its constructor",
            ));
        };
        let part = Part::of(layout, elements).ok_or_else(|| {
            PyValueError::new_err(format!(
                "a part of {} elements must be inside and start at a multiple of {PART}, got \
                 {elements:?}",
                layout.len
            ))
        });
        part.map(Some)
    }
}

/// Checks that the parameters are the pieces of one buffer.
fn check_flat(layouts: &[Layout]) -> PyResult<()> {
    let alike = layouts
        .windows(2)
        .all(|pair| pair[0].dtype == pair[1].dtype);
    // Empty views may have any address.
    let ranges = layouts.iter().map(Layout::range).filter(|r| !r.is_empty());
    let ranges: Vec<_> = ranges.collect();
    if alike && ranges.windows(2).all(|pair| pair[0].end == pair[1].start) {
        return Ok(());
    }
    Err(PyValueError::new_err(
        "params are not the arrays of one buffer, in order and without gaps",
    ))
}
