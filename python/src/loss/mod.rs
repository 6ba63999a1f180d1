//! The losses: arrays in, the value and the gradients out.
//!
//! Other threads may write an array while a loss reads it: NumPy has no locks. Numbers only go
//! through arithmetic, so the result is then that of some mixture of old and new ones. Integers
//! become addresses, so a call copies them once and checks and uses the copy.

mod mining;
mod rows;
mod vectors;

use std::ops::Range;

use fastoptim::loss::{self, Input, Reduction, Target, Weights};
use fastoptim::numeric::math::Math;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyTuple};

use crate::error::to_py;
use crate::memory::inflight;
use crate::memory::items::Items;
use crate::memory::numpy::{Array, Dtype, check_disjoint, floats};

/// The value, and the gradient or a tuple of them where asked for.
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

/// The integers of an array, copied.
enum Integers {
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl Integers {
    /// Those of an array as they are now, or `None` where it has other elements.
    fn of(array: &Array<'_>) -> Option<Self> {
        match array.dtype {
            // SAFETY: the elements are `i32`.
            Dtype::I32 => Some(Self::I32(unsafe { copied(array) })),
            // SAFETY: the elements are `i64`.
            Dtype::I64 => Some(Self::I64(unsafe { copied(array) })),
            _ => None,
        }
    }

    fn widened(self) -> Vec<i64> {
        match self {
            Self::I32(integers) => integers.into_iter().map(i64::from).collect(),
            Self::I64(integers) => integers,
        }
    }
}

/// The elements of an array, each read once: whatever another thread writes afterwards, what was
/// checked is what is used.
///
/// # Safety
/// `I` is an integer, and the type of the elements.
unsafe fn copied<I: Copy>(array: &Array<'_>) -> Vec<I> {
    let mut copy = Vec::with_capacity(array.len);
    let data = array.data.cast_const().cast::<I>();
    // SAFETY: `array` holds its object, so `len` elements of this type can be read; the new memory
    // has room for them, and all bits are an integer. The bytes are copied from a pointer and not
    // from a slice, which would claim that no other thread writes them.
    unsafe {
        data.copy_to_nonoverlapping(copy.as_mut_ptr(), array.len);
        copy.set_len(array.len);
    }
    copy
}

/// What a target holds: its `integers`, or numbers.
///
/// # Safety
/// Where it has no integers, `T` is the type of its elements, the array outlives `'a`, and no other
/// call writes it meanwhile.
unsafe fn target_of<'a, T>(target: &Array<'_>, integers: Option<&'a Integers>) -> Target<'a, T> {
    match integers {
        Some(Integers::I32(classes)) => Target::I32(classes),
        Some(Integers::I64(classes)) => Target::I64(classes),
        // SAFETY: elements of `T` that outlive `'a` and that nobody writes, as this function asks.
        None => Target::Numbers(unsafe { target.slice() }),
    }
}

/// What one call writes: a gradient per input (a single one perhaps over its input) and separate
/// values.
struct Written<'py> {
    gradients: Option<Vec<Array<'py>>>,
    values: Option<Array<'py>>,
    _guard: inflight::Guard,
}

impl<'py> Written<'py> {
    /// Checks `out` against everything that is read, allocates what is missing, and registers all
    /// of the memory.
    fn new(
        py: Python<'py>,
        inputs: &[Array<'py>],
        read: &[(&str, Range<usize>)],
        out: Option<&Bound<'py, PyAny>>,
        gradient: bool,
        values: Option<&[usize]>,
    ) -> PyResult<Self> {
        let gradients = match (gradient, out) {
            (false, _) => None,
            (true, None) => {
                let empty = |input: &Array<'py>| empty(py, &input.shape, input.dtype);
                Some(inputs.iter().map(empty).collect::<PyResult<_>>()?)
            }
            (true, Some(out)) => Some(places(inputs, read, out)?),
        };
        let values = values
            .map(|shape| empty(py, shape, inputs[0].dtype))
            .transpose()?;
        let written = gradients.iter().flatten().map(Array::range).collect();
        let read = read.iter().map(|(_, range)| range.clone());
        let read = read.chain(inputs.iter().map(Array::range)).collect();
        let guard = inflight::enter(written, read)?;
        Ok(Self {
            gradients,
            values,
            _guard: guard,
        })
    }

    /// # Safety
    /// `inputs` are those of `new`, `T` is their type, and they and `self` outlive the result.
    unsafe fn inputs<'a, T>(&self, inputs: &[Array<'_>]) -> Vec<Input<'a, T>> {
        let place = |index| self.gradients.as_ref().map(|gradients| &gradients[index]);
        // SAFETY: the arrays have elements of `T` and outlive the result; `new` registered the
        // memory, so that no other call has it, and found each place apart from all that is read, or
        // equal to its input, which is then only used through the place.
        let input = |(index, input): (usize, &Array<'_>)| unsafe {
            match place(index) {
                None => Input::Value(input.slice()),
                Some(out) if out.data == input.data => Input::InPlace(out.slice_mut()),
                Some(out) => Input::Gradient(input.slice(), out.slice_mut()),
            }
        };
        inputs.iter().enumerate().map(input).collect()
    }

    /// # Safety
    /// `input` is the only one of `new`, `T` is its type, and it and `self` outlive the result.
    unsafe fn input<'a, T>(&self, input: &Array<'_>) -> Input<'a, T> {
        // SAFETY: this function asks for what `inputs` does.
        let mut inputs = unsafe { self.inputs(std::slice::from_ref(input)) };
        inputs.pop().expect("one per input")
    }

    /// # Safety
    /// `T` is the type of the inputs, `self` outlives the result, and there is one result at a time.
    unsafe fn reduction<'a, T>(&self, mean: bool) -> Reduction<'a, T> {
        match &self.values {
            // SAFETY: `new` allocated the values with the type of the inputs, and nobody else has
            // them.
            Some(values) => Reduction::None(unsafe { values.slice_mut() }),
            None if mean => Reduction::Mean,
            None => Reduction::Sum,
        }
    }

    fn found(self, py: Python<'py>, value: f64) -> PyResult<Found<'py>> {
        let value = match self.values {
            Some(values) => values.object.into_any(),
            None => PyFloat::new(py, value).into_any(),
        };
        let Some(gradients) = self.gradients else {
            return Ok((value, None));
        };
        let mut gradients = gradients.into_iter().map(|array| array.object.into_any());
        let gradient = match gradients.len() {
            1 => gradients.next(),
            _ => Some(PyTuple::new(py, gradients)?.into_any()),
        };
        Ok((value, gradient))
    }
}

/// The places of gradients that a caller gives: an array for a single input, which it may be
/// itself, or a tuple of arrays that share no memory with anything.
fn places<'py>(
    inputs: &[Array<'py>],
    read: &[(&str, Range<usize>)],
    out: &Bound<'py, PyAny>,
) -> PyResult<Vec<Array<'py>>> {
    let count = inputs.len();
    let given: Vec<Bound<'py, PyAny>> = match out.cast::<PyTuple>() {
        _ if count == 1 => vec![out.clone()],
        Ok(tuple) if tuple.len() == count => tuple.iter().collect(),
        Ok(tuple) => {
            return Err(PyValueError::new_err(format!(
                "out must have {count} arrays, got {}",
                tuple.len()
            )));
        }
        Err(_) => {
            return Err(PyTypeError::new_err(format!(
                "out must be a tuple of {count} arrays, got {}",
                out.get_type().name()?
            )));
        }
    };
    let mut places = Vec::with_capacity(count);
    for (out, input) in given.iter().zip(inputs) {
        let out = Array::new("out", out)?;
        require_dtype("out", &out, input)?;
        require_shape("out", &out, &input.shape)?;
        out.require_writable("out")?;
        places.push(out);
    }
    let written: Vec<_> = places.iter().map(|out| ("out", out.range())).collect();
    check_disjoint(&written, read)?;
    if count > 1 || places[0].range() != inputs[0].range() {
        let inputs: Vec<_> = inputs.iter().map(|x| ("the input", x.range())).collect();
        check_disjoint(&written, &inputs)?;
    }
    Ok(places)
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
    parameters: Items<f64>,
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
    let inputs = std::slice::from_ref(&input);
    let written = Written::new(py, inputs, &read, out, gradient, values)?;

    /// # Safety
    /// `T` is the type of the arrays, which are those that `written` was made of.
    unsafe fn compute<T: Math>(
        py: Python<'_>,
        (name, parameters, mean): (&str, &[f64], bool),
        [input, target]: [&Array<'_>; 2],
        [weight, pos_weight]: [Option<&Array<'_>>; 2],
        written: &Written<'_>,
        loss_scale: f64,
    ) -> fastoptim::error::Result<f64> {
        // SAFETY: all arrays have elements of `T`, the references to them keep them alive until this
        // returns, and `written` registered them, so that no other call writes them.
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
    let what = (name, parameters.as_slice(), mean == Some(true));
    let (arrays, weights) = ([&input, &target], weights.each_ref().map(Option::as_ref));
    // SAFETY: all arrays were found to have the type of `input`, and `written` is made of them.
    let value = unsafe {
        match input.dtype {
            Dtype::F32 => compute::<f32>(py, what, arrays, weights, &written, loss_scale),
            _ => compute::<f64>(py, what, arrays, weights, &written, loss_scale),
        }
    };
    written.found(py, value.map_err(to_py)?)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(elementwise_loss, module)?)?;
    module.add_function(wrap_pyfunction!(mining::mine_triplets, module)?)?;
    module.add_function(wrap_pyfunction!(rows::row_loss, module)?)?;
    module.add_function(wrap_pyfunction!(vectors::vector_loss, module)?)?;
    module.add_function(wrap_pyfunction!(vectors::gaussian_loss, module)?)
}
