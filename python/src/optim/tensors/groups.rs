//! The groups and their parameters, which users may change between steps.

use fastoptim::step::Progress;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::plan::Plan;
use super::{Known, TensorSet};
use crate::memory::numpy::{Address, Dtype, Layout};
use crate::optim::parameter::Parameter;

impl TensorSet {
    /// Reads the hyperparameters that have changed. Python code may run.
    pub(super) fn read_groups(&mut self, groups: &Bound<'_, PyList>) -> PyResult<()> {
        let (set, py) = (&mut self.set, groups.py());
        let mut read = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let group = group.cast_into::<PyDict>().map_err(|_| {
                PyTypeError::new_err(format!("param_groups[{index}] must be a dict"))
            })?;
            if let Some(known) = set.groups.get(index)
                && known.is_current(&group)?
            {
                continue;
            }
            for (key, value) in self.defaults.bind(py) {
                if !group.contains(&key)? {
                    group.set_item(key, value)?;
                }
            }
            read.push((index, set.keys.read(&group, set.steps)?));
        }
        for (index, group) in read {
            if index < set.groups.len() {
                set.groups[index] = group;
            } else {
                set.groups.push(group);
            }
        }
        set.groups.truncate(groups.len());
        Ok(())
    }

    /// Returns the parameters of all groups in order. Creates new plans if parameters or groups
    /// have changed.
    pub(super) fn parameters<'py>(
        &mut self,
        groups: &Bound<'py, PyList>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let py = groups.py();
        let params = self.keys.params.bind(py);
        let mut objects = Vec::with_capacity(self.plans.len());
        let mut sizes = Vec::with_capacity(groups.len());
        for group in groups.iter() {
            let before = objects.len();
            let listed = group.cast::<PyDict>()?.get_item(params)?;
            let listed =
                listed.ok_or_else(|| PyValueError::new_err("a parameter group lacks params"))?;
            match listed.cast::<PyList>() {
                Ok(list) => objects.extend(list.iter()),
                Err(_) => {
                    for item in listed.try_iter()? {
                        objects.push(item?);
                    }
                }
            }
            sizes.push(objects.len() - before);
        }
        let mut same =
            self.set.parameters.len() == objects.len() && self.set.groups.len() == sizes.len();
        let mut pairs = self.set.parameters.iter().zip(&objects);
        for (group, &size) in sizes.iter().enumerate() {
            same = same
                && pairs.by_ref().take(size).all(|(parameter, object)| {
                    parameter.array.is(object) && parameter.group == group
                });
        }
        if !same {
            self.replace(groups, &objects, &sizes)?;
        }
        Ok(objects)
    }

    /// Replaces the parameters and their plans.
    fn replace(
        &mut self,
        groups: &Bound<'_, PyList>,
        objects: &[Bound<'_, PyAny>],
        sizes: &[usize],
    ) -> PyResult<()> {
        let names = self.names(groups, sizes)?;
        let known: Known = self
            .set
            .parameters
            .drain(..)
            .map(|parameter| (parameter.array.as_ptr().addr(), parameter.progress))
            .collect();
        self.plans.clear();
        self.moved = true;
        let members = sizes
            .iter()
            .enumerate()
            .flat_map(|(g, &n)| std::iter::repeat_n(g, n));
        for ((object, name), group) in objects.iter().zip(names).zip(members) {
            let progress = known.get(&object.as_ptr().addr()).copied();
            let method = &self.set.groups[group].method;
            self.set.parameters.push(Parameter {
                part: None,
                name,
                array: object.clone().unbind(),
                layout: Layout {
                    dtype: Dtype::F32,
                    shape: Vec::new(),
                    len: 0,
                    data: Address(std::ptr::null_mut()),
                },
                group,
                progress: progress.unwrap_or_else(|| Progress::new(method)),
                slots: Vec::new(),
            });
            self.plans.push(Plan::default());
        }
        Ok(())
    }

    /// Returns the names of the parameters, or their numbers if they have no names.
    fn names(&self, groups: &Bound<'_, PyList>, sizes: &[usize]) -> PyResult<Vec<String>> {
        let mut names = Vec::new();
        for (group, &size) in groups.iter().zip(sizes) {
            let given = group
                .cast::<PyDict>()?
                .get_item(self.keys.param_names.bind(groups.py()))?;
            let own = given.and_then(|given| given.extract::<Vec<String>>().ok());
            match own {
                Some(own) if own.len() == size => names.extend(own),
                _ => names.extend((names.len()..names.len() + size).map(|n| n.to_string())),
            }
        }
        Ok(names)
    }
}
