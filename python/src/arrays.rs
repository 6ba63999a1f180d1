//! What the wrappers around an optimizer, the random searches and the benchmarks do to whole
//! arrays.

use fastoptim::random::{self, Draw};
use fastoptim::sam;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, check_disjoint, floats, with_float};
use crate::inflight;

/// Parameters that are written, each with a gradient that is read.
struct Pairs<'py>(Vec<(Array<'py>, Array<'py>)>);

impl<'py> Pairs<'py> {
    /// Checks everything; a parameter without gradient is left out.
    fn new(params: &[Bound<'py, PyAny>], grads: &[Bound<'py, PyAny>]) -> PyResult<Self> {
        if params.len() != grads.len() {
            return Err(PyValueError::new_err(format!(
                "grads has {} arrays for {} parameters",
                grads.len(),
                params.len()
            )));
        }
        let mut pairs = Vec::with_capacity(params.len());
        for (index, (p, g)) in params.iter().zip(grads).enumerate() {
            if g.is_none() {
                continue;
            }
            let p = floats(&format!("params[{index}]"), p)?;
            p.require_writable(&format!("params[{index}]"))?;
            let g = Array::new(&format!("grads[{index}]"), g)?;
            g.require_match(&format!("grads[{index}]"), p.dtype, &p.shape)?;
            pairs.push((p, g));
        }
        let written: Vec<_> = pairs.iter().map(|(p, _)| ("params", p.range())).collect();
        let read: Vec<_> = pairs.iter().map(|(_, g)| ("grads", g.range())).collect();
        check_disjoint(&written, &read)?;
        Ok(Self(pairs))
    }

    fn enter(&self) -> PyResult<inflight::Guard> {
        inflight::enter(
            self.0.iter().map(|(p, _)| p.range()).collect(),
            self.0.iter().map(|(_, g)| g.range()).collect(),
        )
    }
}

/// The global norm that sharpness-aware minimization divides by. Everything is checked that
/// `sam_perturb` needs.
#[pyfunction]
fn sam_norm(
    py: Python<'_>,
    params: Vec<Bound<'_, PyAny>>,
    grads: Vec<Bound<'_, PyAny>>,
    adaptive: bool,
) -> PyResult<f64> {
    let pairs = Pairs::new(&params, &grads)?;
    let _guard = pairs.enter()?;
    let mut sum = 0.0;
    for (p, g) in &pairs.0 {
        sum += with_float!(p.dtype, T => {
            // SAFETY: checked, alive in this frame, and registered.
            let (p, g) = unsafe { (p.slice::<T>(), g.slice()) };
            py.detach(|| sam::squares(p, g, adaptive))
        });
    }
    Ok(sum.sqrt())
}

/// Moves the parameters by `factor` times their gradients.
#[pyfunction]
fn sam_perturb(
    py: Python<'_>,
    params: Vec<Bound<'_, PyAny>>,
    grads: Vec<Bound<'_, PyAny>>,
    factor: f64,
    adaptive: bool,
) -> PyResult<()> {
    let pairs = Pairs::new(&params, &grads)?;
    let _guard = pairs.enter()?;
    for (p, g) in &pairs.0 {
        with_float!(p.dtype, T => {
            // SAFETY: checked, disjoint, alive in this frame, and registered.
            let (p, g) = unsafe { (p.slice_mut::<T>(), g.slice()) };
            py.detach(|| sam::perturb(p, g, factor, adaptive));
        });
    }
    Ok(())
}

/// Swaps the elements of two sequences of arrays of the same shapes.
#[pyfunction]
fn exchange(
    py: Python<'_>,
    params: Vec<Bound<'_, PyAny>>,
    others: Vec<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let pairs = Pairs::new(&params, &others)?;
    for (index, (_, other)) in pairs.0.iter().enumerate() {
        other.require_writable(&format!("others[{index}]"))?;
    }
    let _guard = inflight::enter(
        pairs
            .0
            .iter()
            .flat_map(|(a, b)| [a.range(), b.range()])
            .collect(),
        Vec::new(),
    )?;
    for (a, b) in &pairs.0 {
        with_float!(a.dtype, T => {
            // SAFETY: checked, disjoint, alive in this frame, and registered.
            let (a, b) = unsafe { (a.slice_mut::<T>(), b.slice_mut()) };
            py.detach(|| sam::exchange(a, b));
        });
    }
    Ok(())
}

/// Adds `scale` times normal numbers to all elements: those of draw `draw` under `seed`.
#[pyfunction]
fn add_normal(
    py: Python<'_>,
    params: Vec<Bound<'_, PyAny>>,
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
    for (array, p) in (0..).zip(&arrays) {
        let draw = Draw { seed, draw, array };
        with_float!(p.dtype, T => {
            // SAFETY: checked, disjoint, alive in this frame, and registered.
            let p = unsafe { p.slice_mut::<T>() };
            py.detach(|| random::add_normal(p, scale, draw));
        });
    }
    Ok(())
}

/// Adds `grad` to all of the float32 arrays in one pass: the ceiling of what a step can reach.
#[pyfunction]
fn stream(py: Python<'_>, arrays: Vec<Bound<'_, PyAny>>, grad: &Bound<'_, PyAny>) -> PyResult<()> {
    let pairs = Pairs::new(&arrays, &vec![grad.clone(); arrays.len()])?;
    if !(1..=5).contains(&pairs.0.len()) || pairs.0[0].0.dtype != Dtype::F32 {
        return Err(PyValueError::new_err("arrays must be 1 to 5 of float32"));
    }
    let _guard = pairs.enter()?;
    // SAFETY: checked, disjoint, alive in this frame, and registered.
    let mut arrays = pairs.0.iter().map(|(p, _)| unsafe { p.slice_mut::<f32>() });
    let p = arrays.next().expect("one at least");
    let others = arrays.collect();
    // SAFETY: as above.
    let g = unsafe { pairs.0[0].1.slice() };
    py.detach(|| fastoptim::stream::stream(p, g, others));
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sam_norm, module)?)?;
    module.add_function(wrap_pyfunction!(sam_perturb, module)?)?;
    module.add_function(wrap_pyfunction!(exchange, module)?)?;
    module.add_function(wrap_pyfunction!(add_normal, module)?)?;
    module.add_function(wrap_pyfunction!(stream, module)?)
}
