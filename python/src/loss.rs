//! The losses: arrays in, the value and the gradient out.

use std::ops::Range;

use fastoptim::loss::cross_entropy::{CrossEntropy, Target};
use fastoptim::loss::{self, Input, Reduction, Weights};
use fastoptim::math::Math;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyFloat;

use crate::array::{Array, Dtype, check_disjoint, floats};
use crate::error::to_py;
use crate::inflight;

/// The value, and the gradient where one was asked for.
type Found<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

fn require_dtype(name: &str, array: &Array<'_>, input: &Array<'_>) -> PyResult<()> {
    if array.dtype == input.dtype {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "{name} must be {} as the input is, got {}",
        input.dtype, array.dtype
    )))
}

fn require_shape(name: &str, array: &Array<'_>, shape: &[usize]) -> PyResult<()> {
    if array.shape == shape {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} must have shape {shape:?}, got {:?}: nothing is broadcast",
        array.shape
    )))
}

/// `numpy.empty`, whose memory nobody else has.
fn empty<'py>(py: Python<'py>, shape: &[usize], dtype: Dtype) -> PyResult<Array<'py>> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let shape = pyo3::types::PyTuple::new(py, shape)?;
    let object = EMPTY
        .import(py, "numpy", "empty")?
        .call1((shape, dtype.to_string()))?;
    Array::new("out", &object)
}

/// What one call writes: the gradient (perhaps over the input) and separate values.
struct Written<'py> {
    gradient: Option<Array<'py>>,
    values: Option<Array<'py>>,
    _guard: inflight::Guard,
}

impl<'py> Written<'py> {
    /// Checks `out` against everything that is read, allocates what is missing, and registers all
    /// of the memory.
    fn new(
        py: Python<'py>,
        input: &Array<'py>,
        read: &[(&str, Range<usize>)],
        out: Option<&Bound<'py, PyAny>>,
        gradient: bool,
        values: Option<&[usize]>,
    ) -> PyResult<Self> {
        let gradient = match (gradient, out) {
            (false, _) => None,
            (true, None) => Some(empty(py, &input.shape, input.dtype)?),
            (true, Some(out)) => {
                let out = Array::new("out", out)?;
                require_dtype("out", &out, input)?;
                require_shape("out", &out, &input.shape)?;
                out.require_writable("out")?;
                check_disjoint(&[("out", out.range())], read)?;
                if out.range() != input.range() {
                    check_disjoint(&[("out", out.range())], &[("the input", input.range())])?;
                }
                Some(out)
            }
        };
        let values = values
            .map(|shape| empty(py, shape, input.dtype))
            .transpose()?;
        let written = gradient.iter().map(Array::range).collect();
        let read = read.iter().map(|(_, range)| range.clone());
        let read = read.chain([input.range()]).collect();
        let guard = inflight::enter(written, read)?;
        Ok(Self {
            gradient,
            values,
            _guard: guard,
        })
    }

    /// # Safety
    /// `T` is the input's type, and the input and `self` outlive the result.
    unsafe fn input<'a, T>(&self, input: &Array<'_>) -> Input<'a, T> {
        // SAFETY: `new` registered the memory, and found `out` equal to the input or apart from it.
        unsafe {
            match &self.gradient {
                None => Input::Value(input.slice()),
                Some(out) if out.data == input.data => Input::InPlace(out.slice_mut()),
                Some(out) => Input::Gradient(input.slice(), out.slice_mut()),
            }
        }
    }

    /// # Safety
    /// As `input`.
    unsafe fn reduction<'a, T>(&self, mean: bool) -> Reduction<'a, T> {
        match &self.values {
            // SAFETY: allocated by `new`, so nobody else has it.
            Some(values) => Reduction::None(unsafe { values.slice_mut() }),
            None if mean => Reduction::Mean,
            None => Reduction::Sum,
        }
    }

    fn found(self, py: Python<'py>, value: f64) -> Found<'py> {
        let value = match self.values {
            Some(values) => values.object.into_any(),
            None => PyFloat::new(py, value).into_any(),
        };
        (
            value,
            self.gradient.map(|gradient| gradient.object.into_any()),
        )
    }
}

/// `Some(mean)`, or `None` where values stay apart.
fn reduction(name: &str) -> PyResult<Option<bool>> {
    match name {
        "mean" => Ok(Some(true)),
        "sum" => Ok(Some(false)),
        "none" => Ok(None),
        _ => Err(PyValueError::new_err(format!(
            "reduction must be 'mean', 'sum' or 'none', got {name:?}"
        ))),
    }
}

/// An array of weights, of a shape that ends the input's: all of it, or its last axis.
fn weight<'py>(
    name: &str,
    object: Option<&Bound<'py, PyAny>>,
    input: &Array<'py>,
    last_axis: bool,
) -> PyResult<Option<Array<'py>>> {
    let Some(object) = object else {
        return Ok(None);
    };
    let array = Array::new(name, object)?;
    require_dtype(name, &array, input)?;
    let axis = input.shape.last_chunk::<1>();
    if !(last_axis && axis.is_some_and(|axis| array.shape == axis)) {
        require_shape(name, &array, &input.shape)?;
    }
    Ok(Some(array))
}

/// An elementwise loss by name.
#[pyfunction]
#[pyo3(signature = (
    name, parameters, kind, input, target, out, loss_scale, gradient, weight=None, pos_weight=None
))]
#[expect(clippy::too_many_arguments)]
fn elementwise_loss<'py>(
    py: Python<'py>,
    name: &str,
    parameters: Vec<f64>,
    kind: &str,
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    loss_scale: f64,
    gradient: bool,
    weight: Option<&Bound<'py, PyAny>>,
    pos_weight: Option<&Bound<'py, PyAny>>,
) -> PyResult<Found<'py>> {
    let mean = reduction(kind)?;
    loss::check_loss_scale(loss_scale).map_err(to_py)?;
    let input = floats("input", input)?;
    let target = floats("target", target)?;
    require_dtype("target", &target, &input)?;
    require_shape("target", &target, &input.shape)?;
    let values = mean.is_none().then_some(&*input.shape);
    let weights = [
        self::weight("weight", weight, &input, false)?,
        self::weight("pos_weight", pos_weight, &input, true)?,
    ];
    let mut read = vec![("target", target.range())];
    for (name, array) in ["weight", "pos_weight"].into_iter().zip(&weights) {
        read.extend(array.as_ref().map(|array| (name, array.range())));
    }
    let written = Written::new(py, &input, &read, out, gradient, values)?;

    /// # Safety
    /// `T` is the type of the arrays.
    unsafe fn compute<T: Math>(
        py: Python<'_>,
        (name, parameters, mean): (&str, &[f64], bool),
        [input, target]: [&Array<'_>; 2],
        [weight, pos_weight]: [Option<&Array<'_>>; 2],
        written: &Written<'_>,
        loss_scale: f64,
    ) -> fastoptim::error::Result<f64> {
        // SAFETY: the caller's word; all are held by the caller.
        let (input, target, weights, reduction) = unsafe {
            let weights = Weights {
                weight: weight.map(|array| array.slice()),
                pos_weight: pos_weight.map(|array| array.slice()),
            };
            (
                written.input::<T>(input),
                target.slice(),
                weights,
                written.reduction(mean),
            )
        };
        py.detach(|| {
            loss::elementwise(
                name, parameters, weights, input, target, reduction, loss_scale,
            )
        })
    }
    let what = (name, &*parameters, mean == Some(true));
    let (arrays, weights) = ([&input, &target], weights.each_ref().map(Option::as_ref));
    // SAFETY: the type is the one that was found.
    let value = unsafe {
        match input.dtype {
            Dtype::F32 => compute::<f32>(py, what, arrays, weights, &written, loss_scale),
            _ => compute::<f64>(py, what, arrays, weights, &written, loss_scale),
        }
    };
    Ok(written.found(py, value.map_err(to_py)?))
}

/// Cross-entropy of softmax.
#[pyfunction]
#[pyo3(signature = (
    logits, target, weight, ignore_index, label_smoothing, kind, out, loss_scale, gradient
))]
#[expect(clippy::too_many_arguments)]
fn cross_entropy_loss<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    ignore_index: i64,
    label_smoothing: f64,
    kind: &str,
    out: Option<&Bound<'py, PyAny>>,
    loss_scale: f64,
    gradient: bool,
) -> PyResult<Found<'py>> {
    let mean = reduction(kind)?;
    let logits = floats("logits", logits)?;
    let &[rows, classes] = &*logits.shape else {
        return Err(PyValueError::new_err(format!(
            "logits must have shape (N, C), got {:?}",
            logits.shape
        )));
    };
    let target = Array::new("target", target)?;
    match target.dtype {
        Dtype::I32 | Dtype::I64 => require_shape("target", &target, &[rows])?,
        _ => {
            require_dtype("target", &target, &logits)?;
            require_shape("target", &target, &logits.shape)?;
        }
    }
    let weight = weight
        .map(|weight| Array::new("weight", weight))
        .transpose()?;
    let mut read = vec![("target", target.range())];
    if let Some(weight) = &weight {
        require_dtype("weight", weight, &logits)?;
        require_shape("weight", weight, &[classes])?;
        read.push(("weight", weight.range()));
    }
    let values = mean.is_none().then_some(&logits.shape[..1]);
    let written = Written::new(py, &logits, &read, out, gradient, values)?;

    /// # Safety
    /// `T` is the type of the logits and of the weight.
    unsafe fn compute<T: Math>(
        py: Python<'_>,
        (ignore_index, label_smoothing, mean): (i64, f64, bool),
        [logits, target]: [&Array<'_>; 2],
        weight: Option<&Array<'_>>,
        written: &Written<'_>,
        loss_scale: f64,
    ) -> fastoptim::error::Result<f64> {
        let shape = [logits.shape[0], logits.shape[1]];
        // SAFETY: the caller's word; all are held by the caller.
        let (input, reduction, target, weight) = unsafe {
            let target = match target.dtype {
                Dtype::I32 => Target::I32(target.slice()),
                Dtype::I64 => Target::I64(target.slice()),
                _ => Target::Probabilities(target.slice()),
            };
            let weight = weight.map(|weight| weight.slice::<T>());
            (
                written.input(logits),
                written.reduction(mean),
                target,
                weight,
            )
        };
        let loss = CrossEntropy {
            weight,
            ignore_index,
            label_smoothing,
        };
        py.detach(|| loss.compute(input, shape, target, reduction, loss_scale))
    }
    let options = (ignore_index, label_smoothing, mean == Some(true));
    let (arrays, weight) = ([&logits, &target], weight.as_ref());
    // SAFETY: the type is the one that was found.
    let value = unsafe {
        match logits.dtype {
            Dtype::F32 => compute::<f32>(py, options, arrays, weight, &written, loss_scale),
            _ => compute::<f64>(py, options, arrays, weight, &written, loss_scale),
        }
    };
    Ok(written.found(py, value.map_err(to_py)?))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(elementwise_loss, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy_loss, module)?)
}
