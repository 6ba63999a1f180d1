//! Calls whose arrays are not as the kernels read them.

use fastoptim::error::Result;
use fastoptim::loss::tiled::{
    Layout, TiledArray, TiledCall, TiledInput, TiledReduction, TiledTarget,
};
use fastoptim::numeric::float::Float;
use fastoptim::storage::Rounding;
use fastoptim::storage::view::StorageView;

use super::arguments::{Arguments, Reduce};
use super::arrays::Arrays;
use super::outputs::Outputs;
use super::targets::Target;
use crate::memory::numpy::{Address, Array};
use crate::memory::view::{read, written};

/// The numbers of an array, to be read alone.
///
/// # Safety
/// The array outlives `'a`, and nobody writes it meanwhile.
unsafe fn reading<'a, T: Float>(array: &Array<'_>) -> StorageView<'a, T> {
    // SAFETY: `Array` found the elements there, aligned; that they live, and that nobody writes
    // them, is the contract of this function.
    unsafe { read(array.dtype, Address(array.data), array.len) }
}

/// The numbers of an array, to be written.
///
/// # Safety
/// The array may be written, outlives `'a`, and nobody else reads or writes it meanwhile.
unsafe fn writing<'a, T: Float>(array: &Array<'_>) -> StorageView<'a, T> {
    let nearest = || Rounding::Nearest;
    // SAFETY: `Array` found the elements there, aligned; that they live, and that nobody else has
    // them, is the contract of this function.
    unsafe { written(array.dtype, Address(array.data), array.len, nearest) }
}

/// The call of a loss.
///
/// # Safety
/// `T` is the type of the arithmetic of the first input, `outputs` are those of `arrays`, and both
/// outlive `'a`.
pub(super) unsafe fn call<'a, T: Float>(
    arrays: &'a Arrays<'_>,
    outputs: &Outputs<'_>,
    arguments: &Arguments<'_>,
    loss_scale: f64,
) -> Result<TiledCall<'a, T>> {
    let [rows, length] = arrays.rows.shape;
    let len = rows.saturating_mul(length);
    let own = match arrays.rows.positions {
        1 => Layout::Rows,
        positions => Layout::Columns {
            classes: length,
            positions,
        },
    };
    let mut inputs = Vec::with_capacity(arrays.inputs.len());
    for (index, (array, &each)) in arrays.inputs.iter().zip(&arrays.repeats).enumerate() {
        let layout = if each == 1 {
            own.clone()
        } else {
            Layout::Groups(each)
        };
        // SAFETY: the arrays outlive `'a`. `Outputs` registered their memory, so that no other call
        // writes it, and checked that each gradient can be written and is disjoint from everything
        // that is read, or is its own input, which is then only used through the gradient.
        inputs.push(unsafe {
            match outputs.gradient(index) {
                None => TiledInput::Value(TiledArray::new(reading(array), layout, len)?),
                Some(out) if out.data == array.data => {
                    TiledInput::InPlace(TiledArray::new(writing(out), layout, len)?)
                }
                Some(out) => {
                    let array = TiledArray::new(reading(array), layout, len)?;
                    TiledInput::Gradient(array, writing(out))
                }
            }
        });
    }
    let target = match &arrays.target {
        None => None,
        Some(Target::Integers { integers, .. }) => Some(TiledTarget::Integers(integers)),
        Some(Target::Numbers(array)) => {
            let per_row = array.len != len || array.shape == arrays.rows.outer;
            let layout = if per_row { Layout::Rows } else { own };
            // SAFETY: the target outlives `'a`, and `Outputs` registered it.
            let view = unsafe { reading(array) };
            Some(TiledTarget::Numbers(TiledArray::new(
                view, layout, array.len,
            )?))
        }
    };
    let mut weights = [const { None }; 2];
    for (tiled, weight) in weights.iter_mut().zip(&arrays.weights) {
        if let Some(weight) = weight {
            let (layout, len) = match &weight.axes {
                Some(axes) => (Layout::Broadcast(axes.clone()), len),
                None => (Layout::Rows, weight.array.len),
            };
            // SAFETY: the weight outlives `'a`, and `Outputs` registered it.
            let view = unsafe { reading(&weight.array) };
            *tiled = Some(TiledArray::new(view, layout, len)?);
        }
    }
    let rows_of_batch = arrays.inputs[0].shape.first().copied().unwrap_or_default();
    let reduction = match (arguments.reduce, outputs.values()) {
        // SAFETY: the values were allocated for this call, and `outputs` outlives `'a`.
        (_, Some(values)) => TiledReduction::None(unsafe { writing(values) }),
        (Reduce::Mean, _) => TiledReduction::Mean,
        (Reduce::BatchMean, _) => TiledReduction::BatchMean(rows_of_batch),
        (Reduce::Sum | Reduce::None, _) => TiledReduction::Sum,
    };
    Ok(TiledCall {
        inputs,
        target,
        weights,
        shape: arrays.rows.shape,
        ignore_index: arguments.ignore_index,
        reduction,
        loss_scale,
    })
}
