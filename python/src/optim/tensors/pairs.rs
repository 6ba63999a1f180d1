//! The operations of sharpness-aware minimization on pairs of tensors.

use std::ops::Range;

use fastoptim::ops::sam;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::plan::{has_order, stage};
use crate::memory::inflight::{self, Guard};
use crate::memory::items::Items;
use crate::memory::numpy::{Address, Dtype, check_disjoint, with_float};
use crate::memory::strided::{self, Staged};
use crate::memory::tensor::{Form, Scratch, Torch};
use crate::memory::view;
use crate::ops::arrays::perturbation_rounding;
use crate::optim::gradients::dtypes;
use crate::optim::parameter::slice_mut;
use crate::runtime::commit::Then;
use crate::runtime::threads::detached;

/// A tensor of a pair, or a copy of it in the order of the pair.
struct Side {
    form: Form,
    data: Address,
    copy: Option<Staged>,
}

impl Side {
    fn new(form: Form, order: &[i64], read: bool, written: bool) -> Self {
        let mut side = Self {
            data: form.data,
            copy: None,
            form,
        };
        if !has_order(&side.form, &side.form.shape, order) {
            let mut copy = stage(&side.form, order);
            (copy.read, copy.written) = (read, written);
            side.data = copy.copy();
            side.copy = Some(copy);
        }
        side
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        if let Some(copy) = &self.copy {
            return copy.ranges();
        }
        let start = self.form.data.0.addr();
        let end = start + self.form.len() * self.form.dtype.size();
        Vec::from([start..end; 1])
    }
}

/// Checked pairs of tensors of the same shape, from which a guard excludes other calls.
struct Pairs {
    torch: Torch,
    pairs: Vec<(Side, Side)>,
    _guard: Guard,
}

/// How an operation uses the tensors of a pair.
#[derive(Clone, Copy)]
struct Uses {
    /// Whether the second is a gradient of the first. Otherwise both have the same dtype.
    gradients: bool,
    /// Whether the first is written.
    first: bool,
    /// Whether the second is written.
    second: bool,
}

impl Pairs {
    fn new(
        support: &Bound<'_, PyAny>,
        firsts: &[Bound<'_, PyAny>],
        seconds: &[Bound<'_, PyAny>],
        uses: Uses,
    ) -> PyResult<Self> {
        if firsts.len() != seconds.len() {
            return Err(PyValueError::new_err("there are more tensors on one side"));
        }
        let torch = Torch::new(support)?;
        let (mut pairs, mut scratch) = (Vec::new(), Scratch::default());
        for (index, (first, second)) in firsts.iter().zip(seconds).enumerate() {
            let labels = [
                format!("params[\"{index}\"]"),
                format!("grads[\"{index}\"]"),
            ];
            if uses.first {
                let arguments = (&labels[0], first);
                if torch.see(first, &mut scratch).is_some() {
                    support.call_method1("check_written", arguments)?;
                }
            }
            let mut form = |label: &str, tensor: &Bound<'_, PyAny>| {
                let seen = torch.see(tensor, &mut scratch).map(|seen| seen.form());
                let seen = seen.filter(|form| form.dtype.is_float());
                seen.ok_or_else(|| torch.refusal(label, tensor))
            };
            let (a, b) = (form(&labels[0], first)?, form(&labels[1], second)?);
            let known: &[Dtype] = if uses.gradients {
                dtypes(a.dtype)
            } else {
                &[a.dtype]
            };
            if !known.contains(&b.dtype) {
                return Err(PyTypeError::new_err(format!(
                    "{} must be {} as its parameter is, got {}",
                    labels[1], a.dtype, b.dtype
                )));
            }
            if a.shape != b.shape {
                return Err(PyValueError::new_err(format!(
                    "{} must have the shape {:?} of its parameter, got {:?}",
                    labels[1], a.shape, b.shape
                )));
            }
            let order = if strided::is_dense(&a.shape, &a.strides) {
                a.strides.clone()
            } else {
                strided::c_order(&a.shape)
            };
            pairs.push((
                Side::new(a, &order, true, uses.first),
                Side::new(b, &order, true, uses.second),
            ));
        }
        let (mut written, mut read) = (Vec::new(), Vec::new());
        for (a, b) in &pairs {
            let of = |side: &Side, name, all: &mut Vec<_>| {
                all.extend(side.ranges().into_iter().map(|range| (name, range)));
            };
            of(
                a,
                "params",
                if uses.first { &mut written } else { &mut read },
            );
            of(
                b,
                "grads",
                if uses.second { &mut written } else { &mut read },
            );
        }
        check_disjoint(&written, &read)?;
        let plain = |named: Vec<(&str, Range<usize>)>| named.into_iter().map(|(_, r)| r).collect();
        let guard = inflight::enter(plain(written), plain(read))?;
        for (a, b) in &mut pairs {
            for copy in [&mut a.copy, &mut b.copy].into_iter().flatten() {
                // SAFETY: just seen, held by the caller, and registered.
                unsafe { copy.gather() };
            }
        }
        Ok(Self {
            torch,
            pairs,
            _guard: guard,
        })
    }

    /// Writes the copies back, and increments the versions of tensors.
    fn finish(mut self, py: Python<'_>, written: Vec<&Bound<'_, PyAny>>) -> PyResult<()> {
        for (a, b) in &mut self.pairs {
            for copy in [&mut a.copy, &mut b.copy].into_iter().flatten() {
                if copy.written {
                    // SAFETY: held by the caller and registered still.
                    unsafe { copy.scatter() };
                }
            }
        }
        self.torch.changed(py, &written)
    }
}

/// Returns the global norm for sharpness-aware minimization.
#[pyfunction]
fn tensor_norm(
    py: Python<'_>,
    support: &Bound<'_, PyAny>,
    params: Items<Bound<'_, PyAny>>,
    grads: Items<Bound<'_, PyAny>>,
    adaptive: bool,
) -> PyResult<f64> {
    let uses = Uses {
        gradients: true,
        first: false,
        second: false,
    };
    let pairs = Pairs::new(support, &params, &grads, uses)?;
    let mut sum = 0.0;
    for (p, g) in &pairs.pairs {
        sum += with_float!(p.form.dtype.arithmetic(), T => {
            let len = p.form.len();
            // SAFETY: checked, dense as they are laid out, held by `params` and `grads`, and registered.
            let (p, g) = unsafe {
                (view::read::<T>(p.form.dtype, p.data, len), view::read(g.form.dtype, g.data, len))
            };
            detached(py, || sam::squares(&p, &g, adaptive))
        });
    }
    Ok(sum.sqrt())
}

/// Moves each parameter by its factor times its gradient. 16-bit parameters are rounded
/// stochastically if `noise` has a seed and a step. Makes the calls of `then` afterwards.
#[pyfunction]
#[expect(clippy::too_many_arguments)]
fn perturb_tensors(
    py: Python<'_>,
    support: &Bound<'_, PyAny>,
    params: Items<Bound<'_, PyAny>>,
    grads: Items<Bound<'_, PyAny>>,
    factors: Items<f64>,
    adaptive: bool,
    noise: Option<(u64, u64)>,
    then: Then<'_>,
) -> PyResult<()> {
    if factors.len() != params.len() {
        return Err(PyValueError::new_err(
            "there must be a factor for each parameter",
        ));
    }
    let uses = Uses {
        gradients: true,
        first: true,
        second: false,
    };
    let pairs = Pairs::new(support, &params, &grads, uses)?;
    for (index, ((p, g), &factor)) in (0..).zip(pairs.pairs.iter().zip(factors.iter())) {
        let rounding = perturbation_rounding(noise, index);
        with_float!(p.form.dtype.arithmetic(), T => {
            let len = p.form.len();
            // SAFETY: as in `tensor_norm`, and disjoint.
            let (p, g) = unsafe {
                let p = view::written::<T>(p.form.dtype, p.data, len, || rounding);
                (p, view::read(g.form.dtype, g.data, len))
            };
            detached(py, || sam::perturb(p, &g, factor, adaptive));
        });
    }
    pairs.finish(py, params.iter().collect())?;
    then.run()
}

/// Swaps the elements of two sequences of tensors of the same dtypes and shapes. Makes the calls of
/// `then` afterwards.
#[pyfunction]
fn exchange_tensors(
    py: Python<'_>,
    support: &Bound<'_, PyAny>,
    tensors: Items<Bound<'_, PyAny>>,
    others: Items<Bound<'_, PyAny>>,
    then: Then<'_>,
) -> PyResult<()> {
    let uses = Uses {
        gradients: false,
        first: true,
        second: true,
    };
    let pairs = Pairs::new(support, &tensors, &others, uses)?;
    for (a, b) in &pairs.pairs {
        let bytes = a.form.len() * a.form.dtype.size();
        // SAFETY: as in `perturb_tensors`; any bits are bytes.
        let (a, b) = unsafe {
            (
                slice_mut::<u8>(a.data, bytes),
                slice_mut::<u8>(b.data, bytes),
            )
        };
        py.detach(|| sam::exchange(a, b));
    }
    pairs.finish(py, tensors.iter().chain(others.iter()).collect())?;
    then.run()
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(tensor_norm, module)?)?;
    module.add_function(wrap_pyfunction!(perturb_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(exchange_tensors, module)?)
}
