//! Operations on whole arrays for SAM, EMA, random search and benchmarks.

use fastoptim::exec::ceiling::{self, Access};
use fastoptim::exec::pool;
use fastoptim::ops;
use fastoptim::ops::normal::{self, Draw};
use fastoptim::ops::sam;
use fastoptim::storage::{Noise, Rounding};
use fastoptim::sweep::segment::MAX_STATE;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::to_py;
use crate::memory::inflight;
use crate::memory::items::Items;
use crate::memory::numpy::{Address, Array, Dtype, check_disjoint, floats, with_float};
use crate::memory::pairs::{Dtypes, Pairs, Side};
use crate::memory::view;
use crate::runtime::commit::Then;
use crate::runtime::threads::detached;

/// Returns the rounding of the 16-bit parameter of this index in a perturbation: stochastic if
/// `noise` has a seed and a step.
pub(crate) fn perturbation_rounding(noise: Option<(u64, u64)>, index: u64) -> Rounding {
    /// The noise buffer, different from those of a step: 0 for the parameter and 1 to `MAX_STATE`.
    const BUFFER: u64 = MAX_STATE as u64 + 1;
    noise.map_or(Rounding::Nearest, |(seed, step)| {
        Rounding::Stochastic(Noise::new(seed, index, BUFFER, step))
    })
}

/// Checks parameters to write, each with a gradient of the same dtype to read.
fn moved_by<'py>(
    params: &[Bound<'py, PyAny>],
    grads: &[Bound<'py, PyAny>],
) -> PyResult<Pairs<'py>> {
    Pairs::new(
        Dtypes::Full,
        None,
        Side::written("params", params),
        Side::read("grads", grads),
    )
}

/// Checks parameters to write, each with a gradient to read of a dtype that `step` accepts.
fn perturbed_by<'py>(
    params: &[Bound<'py, PyAny>],
    grads: &[Bound<'py, PyAny>],
) -> PyResult<Pairs<'py>> {
    Pairs::new(
        Dtypes::Gradients,
        None,
        Side::written("params", params),
        Side::read("grads", grads),
    )
}

/// Returns the global norm by which sharpness-aware minimization divides. Performs all checks of
/// `sam_perturb`.
#[pyfunction]
fn sam_norm(
    py: Python<'_>,
    params: Items<Bound<'_, PyAny>>,
    grads: Items<Bound<'_, PyAny>>,
    adaptive: bool,
) -> PyResult<f64> {
    let pairs = perturbed_by(&params, &grads)?;
    let _guard = pairs.enter()?;
    let mut sum = 0.0;
    for (p, g) in &pairs.arrays {
        sum += with_float!(p.dtype.arithmetic(), T => {
            // SAFETY: the arrays are checked, held by this frame, and registered by the guard.
            let (p, g) = unsafe { (view::read_array::<T>(p), view::read_array(g)) };
            detached(py, || sam::squares(&p, &g, adaptive))
        });
    }
    Ok(sum.sqrt())
}

/// Adds the factor times the gradient to each parameter. If `noise` has a seed and a step,
/// parameters in 16 bits are rounded stochastically.
#[pyfunction]
#[pyo3(signature = (params, grads, factors, adaptive, noise=None, then=None))]
fn sam_perturb(
    py: Python<'_>,
    params: Items<Bound<'_, PyAny>>,
    grads: Items<Bound<'_, PyAny>>,
    factors: Items<f64>,
    adaptive: bool,
    noise: Option<(u64, u64)>,
    then: Option<Then<'_>>,
) -> PyResult<()> {
    let pairs = perturbed_by(&params, &grads)?;
    let _guard = pairs.enter()?;
    if factors.len() != params.len() {
        return Err(PyValueError::new_err(format!(
            "factors has {} numbers for {} parameters",
            factors.len(),
            params.len()
        )));
    }
    let moved = factors
        .iter()
        .zip(grads.iter())
        .filter(|(_, g)| !g.is_none());
    for (index, ((p, g), (&factor, _))) in (0..).zip(pairs.arrays.iter().zip(moved)) {
        let rounding = perturbation_rounding(noise, index);
        with_float!(p.dtype.arithmetic(), T => {
            // SAFETY: the arrays are checked, disjoint, held by this frame, and registered by the
            // guard.
            let (p, g) = unsafe {
                let p = view::written::<T>(p.dtype, Address(p.data), p.len, || rounding);
                (p, view::read_array(g))
            };
            detached(py, || sam::perturb(p, &g, factor, adaptive));
        });
    }
    then.map_or(Ok(()), |then| then.run())
}

/// Swaps the elements of two sequences of arrays with the same shapes. Error messages use `label`
/// and `names` for the second sequence.
#[pyfunction]
#[pyo3(signature = (arrays, others, label="others", names=None, then=None))]
fn exchange(
    py: Python<'_>,
    arrays: Items<Bound<'_, PyAny>>,
    others: Items<Bound<'_, PyAny>>,
    label: &str,
    names: Option<Items<String>>,
    then: Option<Then<'_>>,
) -> PyResult<()> {
    let pairs = Pairs::new(
        Dtypes::Any,
        names.as_ref().map(|names| names.as_slice()),
        Side::written("arrays", &arrays),
        Side::written(label, &others),
    )?;
    let _guard = pairs.enter()?;
    for (a, b) in &pairs.arrays {
        // SAFETY: the arrays are checked, disjoint, held by this frame, and registered by the
        // guard. Every bit pattern is a valid integer.
        unsafe {
            match a.dtype.size() {
                2 => swap::<u16>(py, a, b),
                4 => swap::<u32>(py, a, b),
                _ => swap::<u64>(py, a, b),
            }
        }
    }
    then.map_or(Ok(()), |then| then.run())
}

/// # Safety
/// As for [`Array::slice_mut`] for both arrays, where `T` is an integer type of the size of the
/// elements.
unsafe fn swap<T: Send>(py: Python<'_>, a: &Array<'_>, b: &Array<'_>) {
    // SAFETY: by this function's contract `T` has the size of the elements, which are aligned to
    // their size, both arrays outlive this call, and no other code accesses them.
    let (a, b) = unsafe { (a.slice_mut::<T>(), b.slice_mut::<T>()) };
    py.detach(|| sam::exchange(a, b));
}

/// Moves averages towards values: `average += weight (value - average)`. A weight of 1 copies.
/// Error messages use `label` and `names` for the values.
#[pyfunction]
#[pyo3(signature = (averages, values, weight, label, names, then=None))]
fn lerp(
    py: Python<'_>,
    averages: Items<Bound<'_, PyAny>>,
    values: Items<Bound<'_, PyAny>>,
    weight: f64,
    label: &str,
    names: Items<String>,
    then: Option<Then<'_>>,
) -> PyResult<()> {
    let pairs = Pairs::new(
        Dtypes::Narrower,
        Some(&names),
        Side::written("average", &averages),
        Side::read(label, &values),
    )?;
    let _guard = pairs.enter()?;
    for dtype in [Dtype::F32, Dtype::F64] {
        let of_dtype = pairs.arrays.iter().filter(|(a, _)| a.dtype == dtype);
        with_float!(dtype, T => {
            // SAFETY: the arrays are checked, disjoint, held by this frame, and registered by the
            // guard.
            let pair = |(a, x): &(Array<'_>, Array<'_>)| unsafe {
                (view::written_array::<T>(a), view::read_array::<T>(x))
            };
            let pairs: Vec<_> = of_dtype.map(pair).collect();
            detached(py, || ops::lerp::lerp(pairs, weight));
        });
    }
    then.map_or(Ok(()), |then| then.run())
}

/// Adds `scale` times the normally distributed numbers of draw `draw` for `seed` to all elements.
#[pyfunction]
fn add_normal(
    py: Python<'_>,
    params: Items<Bound<'_, PyAny>>,
    scale: f64,
    seed: u64,
    draw: u64,
) -> PyResult<()> {
    let mut arrays = Vec::with_capacity(params.len());
    for (index, p) in params.iter().enumerate() {
        let array = floats(&format!("params[{index}]"), p)?;
        array.require_writable(&format!("params[{index}]"))?;
        arrays.push(array);
    }
    let ranges: Vec<_> = arrays.iter().map(|p| ("params", p.range())).collect();
    check_disjoint(&ranges, &[])?;
    let _guard = inflight::enter(arrays.iter().map(Array::range).collect(), Vec::new())?;
    if scale == 0.0 {
        return Ok(());
    }
    for (array, p) in (0..).zip(&arrays) {
        let draw = Draw { seed, draw, array };
        with_float!(p.dtype, T => {
            // SAFETY: the arrays are checked, disjoint, held by this frame, and registered by the
            // guard.
            let p = unsafe { view::written_array::<T>(p) };
            detached(py, || normal::add_normal(p, scale, draw));
        });
    }
    Ok(())
}

/// Passes so often over float32 arrays in plain loops that read and write the arrays and read
/// `grad`: the upper bound that memory sets to the speed of a step. It changes the arrays.
#[pyfunction]
#[pyo3(signature = (arrays, grad, passes=1))]
fn stream(
    py: Python<'_>,
    arrays: Items<Bound<'_, PyAny>>,
    grad: &Bound<'_, PyAny>,
    passes: u16,
) -> PyResult<()> {
    let pairs = moved_by(&arrays, &vec![grad.clone(); arrays.len()])?;
    let read = floats("grad", grad)?;
    if read.dtype != Dtype::F32 {
        return Err(PyValueError::new_err("arrays must be arrays of float32"));
    }
    if passes == 0 {
        return Err(PyValueError::new_err("passes must be >= 1"));
    }
    let _written = pairs.enter()?;
    let _read = inflight::enter(Vec::new(), vec![read.range()])?;
    // SAFETY: the arrays are checked, disjoint, held by this frame, and registered by the guards; a
    // word has the size and the alignment of an f32.
    let mut accesses: Vec<_> = pairs
        .arrays
        .iter()
        .map(|(p, _)| Access::Update(unsafe { p.slice_mut() }))
        .collect();
    // SAFETY: as for the arrays, and the gradient is only read.
    accesses.push(Access::Read(unsafe { read.slice() }));
    py.detach(|| ceiling::pass(accesses, pool::count(), passes.into()))
        .map_err(to_py)?;
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sam_norm, module)?)?;
    module.add_function(wrap_pyfunction!(sam_perturb, module)?)?;
    module.add_function(wrap_pyfunction!(exchange, module)?)?;
    module.add_function(wrap_pyfunction!(lerp, module)?)?;
    module.add_function(wrap_pyfunction!(add_normal, module)?)?;
    module.add_function(wrap_pyfunction!(stream, module)?)
}
