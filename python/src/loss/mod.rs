//! The losses: arrays in, the value and the gradients out. The core checks names and ranges of
//! arguments; here they are converted, and arrays are checked by the signature of the loss.

mod arguments;
mod arrays;
mod integers;
mod mining;
mod outputs;
mod targets;
mod tensors;
mod tiled;
mod variance;
mod weights;

use fastoptim::loss::{Call, Kind, Target as CoreTarget};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::error::to_py;
use crate::memory::numpy::with_float;
use crate::runtime::threads::detached;
use arguments::{Arguments, Reduce};
use arrays::Arrays;
use outputs::{Outputs, ValueAndGradient};
use targets::Target;

fn kind_of(name: &str) -> PyResult<Kind> {
    Kind::from_name(name).ok_or_else(|| PyValueError::new_err(format!("unknown loss {name:?}")))
}

/// Checks the arguments of a loss, and returns them as plain Python values.
#[pyfunction]
fn loss_arguments<'py>(name: &str, arguments: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    Arguments::read(kind_of(name)?, arguments)?.plain(arguments)
}

/// Computes a loss by name: its value and, if `gradient` is true, its gradients. Values that are
/// not reduced are written to `values` if it is given.
#[pyfunction]
#[pyo3(signature = (name, arguments, inputs, out, loss_scale, gradient, values=None))]
#[expect(clippy::too_many_arguments)]
fn compute_loss<'py>(
    py: Python<'py>,
    name: &str,
    arguments: &Bound<'py, PyDict>,
    inputs: &Bound<'py, PyTuple>,
    out: Option<&Bound<'py, PyAny>>,
    loss_scale: f64,
    gradient: bool,
    values: Option<&Bound<'py, PyAny>>,
) -> PyResult<ValueAndGradient<'py>> {
    let kind = kind_of(name)?;
    let arguments = Arguments::read(kind, arguments)?;
    let out = gradient.then_some(out);
    let (value, outputs) = compute(py, kind, &arguments, inputs, out, loss_scale, values)?;
    outputs.into_python(py, value)
}

/// Computes a loss with checked arguments. The gradients are written to `Some(out)`, and to new
/// arrays if `out` is `None`; without `Some` there are none.
fn compute<'py>(
    py: Python<'py>,
    kind: Kind,
    arguments: &Arguments<'py>,
    inputs: &Bound<'py, PyTuple>,
    out: Option<Option<&Bound<'py, PyAny>>>,
    loss_scale: f64,
    values: Option<&Bound<'py, PyAny>>,
) -> PyResult<(f64, Outputs<'py>)> {
    let arrays = Arrays::new(kind.signature(), inputs, &arguments.weights)?;
    let input = &arrays.inputs[0];
    let rows = input.shape.first().copied();
    if arguments.reduce == Reduce::BatchMean && rows.is_none() {
        return Err(PyValueError::new_err("batchmean needs an input with rows"));
    }
    let shape = (arguments.reduce == Reduce::None).then_some(&*arrays.rows.outer);
    let outputs = Outputs::new(py, &arrays, out, (shape, values))?;
    let value = with_float!(input.dtype.arithmetic(), T => {
        let loss = &arguments.loss;
        if !arrays.are_native() {
            // SAFETY: `T` is the type of the arithmetic, and this frame holds arrays and outputs
            // until the call ends.
            let call = unsafe { tiled::call::<T>(&arrays, &outputs, arguments, loss_scale) };
            let call = call.map_err(to_py)?;
            let value = detached(py, || loss.evaluate_tiled(call));
            return Ok((value.map_err(to_py)?, outputs));
        }
        // SAFETY: the arrays are native: all but integer targets have this type. This frame holds
        // them until the call ends, and `outputs` registered them, so that no other call writes them.
        let call = unsafe {
            Call::<T> {
                inputs: outputs.inputs(&arrays.inputs),
                target: arrays.target.as_ref().map(|target| match target {
                    Target::Integers { integers, .. } => CoreTarget::Integers(integers),
                    Target::Numbers(numbers) => CoreTarget::Numbers(numbers.slice()),
                }),
                weights: arrays.weights.each_ref().map(|weight| {
                    weight.as_ref().map(|weight| weight.array.slice())
                }),
                shape: arrays.rows.shape,
                ignore_index: arguments.ignore_index,
                reduction: outputs.reduction(arguments.reduce, rows.unwrap_or_default()),
                loss_scale,
            }
        };
        detached(py, || loss.evaluate(call))
    });
    Ok((value.map_err(to_py)?, outputs))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(compute_loss, module)?)?;
    module.add_function(wrap_pyfunction!(loss_arguments, module)?)?;
    tensors::register(module)?;
    module.add_function(wrap_pyfunction!(mining::mine_triplets, module)?)
}
