//! Checks of a whole call, before anything is written.

use std::sync::{Mutex, PoisonError};

use super::evaluate::Kernel;
use super::{Layout, TiledArray, TiledCall, TiledInput, TiledReduction, TiledTarget};
use crate::error::{Error, Result};
use crate::exec::isa::Tier;
use crate::exec::pool;
use crate::exec::scratch::Scratch;
use crate::loss::checks::require_len;
use crate::loss::signature::{MAX_WEIGHTS, Role, Signature, WeightShape};
use crate::numeric::math::Math;
use crate::reduce::BLOCK;
use crate::storage::view::StorageView;

/// The weights of classes, in the type of the kernels.
pub(super) fn class_weights<T: Math>(
    signature: &Signature,
    call: &TiledCall<'_, T>,
    tier: Tier,
) -> Result<[Option<Vec<T>>; MAX_WEIGHTS]> {
    let mut classes = [const { None }; MAX_WEIGHTS];
    for ((found, (_, shape)), weight) in
        classes.iter_mut().zip(signature.weights).zip(&call.weights)
    {
        if let (WeightShape::Classes, Some(weight)) = (shape, weight) {
            let mut all = vec![T::ZERO; weight.view.len()];
            // SAFETY: the length is that of the view, whose constructor asked that nobody writes
            // it.
            unsafe { weight.view.load(0, &mut all, tier) };
            require_len("weight", all.len(), call.shape[1])?;
            *found = Some(all);
        }
    }
    Ok(classes)
}

/// Checks what the tiles rely on: the lengths and the layouts of all arrays.
///
/// # Errors
/// An array has another length, one that is written is read-only, or classes are on another axis
/// than the rows say.
pub(super) fn check_lengths<T: Math>(
    signature: &Signature,
    call: &TiledCall<'_, T>,
    len: usize,
) -> Result<()> {
    let [rows, length] = call.shape;
    let unfit = || Error::Value("the layout of an array does not fit the rows".into());
    let require = |name: &str, array: &TiledArray<'_, T>, expected: usize| {
        require_len(name, array.len, expected)?;
        match array.layout {
            Layout::Columns { classes, .. } if classes != length || expected != len => Err(unfit()),
            _ => Ok(()),
        }
    };
    let require_writable = |name: &str, view: &StorageView<'_, T>, expected: usize| {
        require_len(name, view.len(), expected)?;
        let refuse = || Error::Value(format!("{name} is read-only"));
        view.is_writable().then_some(()).ok_or_else(refuse)
    };
    for input in &call.inputs {
        let array = input.array();
        require("the input", array, len)?;
        if let Some(gradient) = input.gradient() {
            if matches!(array.layout, Layout::Broadcast(_)) {
                return Err(unfit());
            }
            require_writable("the gradient", gradient, array.view.len())?;
        }
    }
    if let Some(TiledTarget::Numbers(target)) = &call.target {
        require("target", target, rows * target_width(signature, call))?;
    }
    for (weight, (name, shape)) in call.weights.iter().zip(signature.weights) {
        match (weight, shape) {
            (Some(weight), WeightShape::Elements | WeightShape::ElementsOrLastAxis) => {
                require(name, weight, len)?;
            }
            (Some(_), WeightShape::Classes) | (None, _) => {}
        }
    }
    match &call.reduction {
        TiledReduction::None(values) => require_writable("the values", values, rows),
        _ => Ok(()),
    }
}

/// The elements of a target of numbers per row.
pub(super) fn target_width<T>(signature: &Signature, call: &TiledCall<'_, T>) -> usize {
    let is_per_row = signature
        .arrays
        .iter()
        .any(|(_, role)| *role == Role::RowTarget);
    if is_per_row { 1 } else { call.shape[1] }
}

/// Checks the elements of the arrays that a loss restricts.
///
/// # Errors
/// Names the first element out of range.
pub(super) fn check_elements<T: Math>(
    kernel: &Kernel<'_, T>,
    call: &TiledCall<'_, T>,
    tier: Tier,
) -> Result<()> {
    let mut inputs = call.inputs.iter();
    for &(name, role) in kernel.signature.arrays {
        let array = match (role.is_input(), &call.target) {
            (true, _) => inputs.next().map(TiledInput::array),
            (false, Some(TiledTarget::Numbers(target))) => Some(target),
            (false, _) => None,
        };
        let Some(array) = array.filter(|_| kernel.checked.contains(&name)) else {
            continue;
        };
        let len = array.view.len();
        let first = Mutex::new(None);
        pool::run(len.div_ceil(BLOCK), len / 4, |block| {
            let start = block * BLOCK;
            let mut scratch = Scratch::<T, 1>::new(BLOCK.min(len - start));
            let [tile] = scratch.arrays();
            // SAFETY: the tile ends at or before the end of the view, and nothing is written before
            // all elements are checked.
            let elements = unsafe { array.view.read_into(start, tile, tier) };
            if let Err(error) = (kernel.check)(name, elements, start) {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(other, _)| start < *other) {
                    *first = Some((start, error));
                }
            }
        });
        let found: Option<(usize, Error)> =
            first.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = found {
            return Err(error);
        }
    }
    Ok(())
}
