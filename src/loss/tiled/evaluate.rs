//! The evaluation of a call by tiles of a few blocks.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::checks::{check_elements, check_lengths, class_weights, target_width};
use super::sums::Sums;
use super::{Layout, TiledCall, TiledInput, TiledReduction, TiledTarget, array};
use crate::error::{Error, Result};
use crate::exec::isa::{self, Tier};
use crate::exec::pool;
use crate::exec::scratch::{Scratch, TILE};
use crate::loss::call::Call;
use crate::loss::checks::{changed, require_len};
use crate::loss::driver::buffers::{Input, Reduction};
use crate::loss::driver::rowwise;
use crate::loss::labels::{Labels, Target};
use crate::loss::signature::{InputShape, MAX_WEIGHTS, Signature};
use crate::numeric::math::Math;
use crate::reduce::Partials;

/// [`Loss::check_elements`](crate::loss::Loss::check_elements)
type Check<'k, T> = &'k (dyn Fn(&str, &[T], usize) -> Result<()> + Sync);

/// [`Loss::evaluate`](crate::loss::Loss::evaluate) or [`compute`](crate::loss::Loss::compute)
type Compute<'k, T> = &'k (dyn Fn(Call<'_, T>) -> Result<f64> + Sync);

/// What a loss does with the parts of a call.
pub(in crate::loss) struct Kernel<'k, T> {
    pub(in crate::loss) signature: &'k Signature,
    /// [`Loss::CHECKED`](crate::loss::Loss::CHECKED)
    pub(in crate::loss) checked: &'k [&'k str],
    /// [`Loss::check_elements`](crate::loss::Loss::check_elements)
    pub(in crate::loss) check: Check<'k, T>,
    /// [`Loss::evaluate`](crate::loss::Loss::evaluate)
    pub(in crate::loss) evaluate: Compute<'k, T>,
    /// [`Loss::compute`](crate::loss::Loss::compute)
    pub(in crate::loss) compute: Compute<'k, T>,
}

/// A call that was checked.
struct Checked<'k, 'a, T> {
    kernel: &'k Kernel<'k, T>,
    call: TiledCall<'a, T>,
    classes: [Option<Vec<T>>; MAX_WEIGHTS],
    /// Rows per block, and blocks that are loaded at a time.
    block: usize,
    blocks: usize,
    /// The factor of the gradients.
    scale: f64,
    sums: Vec<Option<Sums>>,
    tier: Tier,
}

/// As [`Loss::evaluate`](crate::loss::Loss::evaluate).
///
/// # Errors
/// As for that.
pub(in crate::loss) fn evaluate<T: Math>(
    kernel: &Kernel<'_, T>,
    call: TiledCall<'_, T>,
) -> Result<f64> {
    let tier = isa::current();
    let [rows, length] = call.shape;
    let len = rowwise::elements(call.shape)?;
    let classes = class_weights(kernel.signature, &call, tier)?;
    // Everything but elements and lengths is checked by a call without rows.
    (kernel.evaluate)(part(&call, &classes, Vec::new(), 0..0, Parts::default())?)?;
    let total = match &call.target {
        Some(TiledTarget::Integers(target)) if kernel.signature.shape == InputShape::Scores => {
            let labels = Labels {
                shape: call.shape,
                target: Target::Integers(target),
                weight: classes[0].as_deref(),
                ignore_index: call.ignore_index,
            };
            labels.check(kernel.signature.weighted_mean)?
        }
        Some(TiledTarget::Integers(target)) => {
            require_len("target", target.len(), rows)?;
            rows as f64
        }
        _ => rows as f64,
    };
    check_lengths(kernel.signature, &call, len)?;
    check_elements(kernel, &call, tier)?;
    let reduction = match &call.reduction {
        TiledReduction::Mean => Reduction::<T>::Mean,
        TiledReduction::BatchMean(rows) => Reduction::BatchMean(*rows),
        TiledReduction::Sum | TiledReduction::None(_) => Reduction::Sum,
    };
    let [count, scale] = reduction.scales(total, call.loss_scale);
    let block = rowwise::rows_per_block(length);
    let mut checked = Checked {
        kernel,
        block,
        blocks: blocks_at_a_time(&call, block),
        scale,
        sums: Vec::new(),
        classes,
        call,
        tier,
    };
    Ok(checked.run(len)? / count)
}

/// Blocks that are loaded at a time: several rows where these are neighbours in memory, for the
/// sake of cache lines.
fn blocks_at_a_time<T>(call: &TiledCall<'_, T>, block: usize) -> usize {
    const NEIGHBOURS: usize = 64;
    const MOST: usize = 1 << 16;
    let columns =
        |input: &TiledInput<'_, T>| matches!(input.array().layout, Layout::Columns { .. });
    if call.inputs.iter().any(columns) {
        let most = MOST / (block * call.shape[1]).max(1);
        NEIGHBOURS.div_ceil(block).min(most).max(1)
    } else {
        1
    }
}

/// The parts of the arrays other than inputs that belong to some rows.
struct Parts<'p, T> {
    target: &'p [T],
    weights: [&'p [T]; MAX_WEIGHTS],
    values: Option<&'p mut [T]>,
}

impl<T> Default for Parts<'_, T> {
    fn default() -> Self {
        Self {
            target: &[],
            weights: [&[]; MAX_WEIGHTS],
            values: None,
        }
    }
}

/// The call of some rows, without inputs where there are no rows.
fn part<'p, T: Math>(
    call: &TiledCall<'p, T>,
    classes: &'p [Option<Vec<T>>; MAX_WEIGHTS],
    mut inputs: Vec<Input<'p, T>>,
    rows: Range<usize>,
    parts: Parts<'p, T>,
) -> Result<Call<'p, T>> {
    if rows.is_empty() {
        inputs.extend(call.inputs.iter().map(|_| Input::Value(&[])));
    }
    let outside = || Error::Value("target must have an element per row".into());
    let target = match &call.target {
        None => None,
        Some(TiledTarget::Numbers(_)) => Some(Target::Numbers(parts.target)),
        Some(TiledTarget::Integers(target)) => {
            let target = target.get(rows.clone()).ok_or_else(outside)?;
            Some(Target::Integers(target))
        }
    };
    let mut weights = [None; MAX_WEIGHTS];
    for (k, weight) in weights.iter_mut().enumerate() {
        let given = call.weights[k].as_ref();
        *weight = given.map(|_| classes[k].as_deref().unwrap_or(parts.weights[k]));
    }
    Ok(Call {
        inputs,
        target,
        weights,
        shape: [rows.len(), call.shape[1]],
        ignore_index: call.ignore_index,
        reduction: match (parts.values, &call.reduction) {
            (Some(values), _) => Reduction::None(values),
            // The checks of the call without rows see the reduction itself.
            (None, TiledReduction::BatchMean(count)) if rows.is_empty() => {
                Reduction::BatchMean(*count)
            }
            _ => Reduction::Sum,
        },
        loss_scale: call.loss_scale,
    })
}

/// Cuts `n` elements off.
fn cut<'m, T>(memory: &mut &'m mut [T], n: usize) -> &'m mut [T] {
    let (piece, rest) = std::mem::take(memory).split_at_mut(n);
    *memory = rest;
    piece
}

impl<T: Math> Checked<'_, '_, T> {
    /// The sum of the values of all rows.
    fn run(&mut self, len: usize) -> Result<f64> {
        let [rows, length] = self.call.shape;
        let (block, tier) = (self.block, self.tier);
        let count = rows.div_ceil(block);
        for input in &self.call.inputs {
            self.sums
                .push(match (&input.array().layout, input.gradient()) {
                    (&Layout::Groups(length), Some(_)) => Some(Sums::new(length, count)),
                    _ => None,
                });
        }
        let partials = Partials::new(count);
        let failed = AtomicBool::new(false);
        let this = &*self;
        pool::run(count.div_ceil(this.blocks), len, |tile| {
            let first = tile * this.blocks;
            let blocks = first..count.min(first + this.blocks);
            if this.tile(blocks, &partials).is_err() {
                failed.store(true, Ordering::Relaxed);
            }
        });
        for (input, sums) in self.call.inputs.iter().zip(&self.sums) {
            if let (Some(sums), Some(gradient)) = (sums, input.gradient()) {
                // SAFETY: the gradient was checked to have an element per group, and no block is at
                // work any more.
                unsafe {
                    if len == 0 {
                        gradient.clear(0, gradient.len());
                    } else {
                        sums.finish(len, block * length, gradient, tier);
                    }
                }
            }
        }
        if failed.into_inner() {
            // Everything was checked before.
            return Err(changed("an argument"));
        }
        Ok(partials.total())
    }

    /// Loads some blocks, computes their sums, and stores the gradients and the values.
    ///
    /// # Errors
    /// An element is out of its range, though all were checked.
    fn tile(&self, blocks: Range<usize>, partials: &Partials) -> Result<()> {
        let Self { call, tier, .. } = self;
        let [rows, length] = call.shape;
        let rows = blocks.start * self.block..rows.min(blocks.end * self.block);
        let (start, n) = (rows.start * length, rows.len() * length);
        // Elements per row of the target and of each weight, where they are loaded.
        let target_width = match &call.target {
            Some(TiledTarget::Numbers(_)) => target_width(self.kernel.signature, call),
            _ => 0,
        };
        let per_element = |k: usize| call.weights[k].is_some() && self.classes[k].is_none();
        let weight_width = |k: usize| if per_element(k) { length } else { 0 };
        let values_width = usize::from(matches!(call.reduction, TiledReduction::None(_)));
        let widths =
            target_width + (0..MAX_WEIGHTS).map(weight_width).sum::<usize>() + values_width;
        let mut scratch = Scratch::<T, 1>::new(TILE + n * call.inputs.len() + rows.len() * widths);
        let [mut memory] = scratch.arrays();
        let run = cut(&mut memory, TILE);
        let mut xs: Vec<&mut [T]> = Vec::with_capacity(call.inputs.len());
        let target = cut(&mut memory, rows.len() * target_width);
        let mut weights: [&mut [T]; MAX_WEIGHTS] =
            std::array::from_fn(|k| cut(&mut memory, rows.len() * weight_width(k)));
        let values = cut(&mut memory, rows.len() * values_width);
        for input in &call.inputs {
            let x = cut(&mut memory, n);
            // SAFETY: the rows are among those that `TiledArray::new` was checked for; no other
            // tile has them, and this one has not written them yet.
            unsafe { input.array().load(start, x, run, *tier) };
            xs.push(x);
        }
        // SAFETY: the rows are among those that these arrays were checked for, and they are only
        // read.
        unsafe {
            if let Some(TiledTarget::Numbers(array)) = &call.target {
                array.load(rows.start * target_width, target, run, *tier);
            }
            for (k, weight) in weights.iter_mut().enumerate() {
                if let (true, Some(array)) = (per_element(k), &call.weights[k]) {
                    array.load(start, weight, run, *tier);
                }
            }
        }
        for block in blocks {
            let own = block * self.block..rows.end.min((block + 1) * self.block);
            let local = own.start - rows.start..own.end - rows.start;
            let place = |width: usize| local.start * width..local.end * width;
            let inputs = xs.iter_mut().zip(&call.inputs).map(|(x, input)| {
                let x = &mut x[place(length)];
                match input.gradient() {
                    Some(_) => Input::InPlace(x),
                    None => Input::Value(x),
                }
            });
            let parts = Parts {
                target: &target[place(target_width)],
                weights: std::array::from_fn(|k| &weights[k][place(weight_width(k))]),
                values: (values_width > 0).then(|| &mut values[local.clone()]),
            };
            let mut part = part(call, &self.classes, inputs.collect(), own.clone(), parts)?;
            part.loss_scale = self.scale;
            partials.set(block, (self.kernel.compute)(part)?);
            for ((x, input), sums) in xs.iter().zip(&call.inputs).zip(&self.sums) {
                if let (Some(sums), Some(gradient)) = (sums, input.gradient()) {
                    let elements = own.start * length..own.end * length;
                    // SAFETY: the gradient was checked to have an element per group, and each block
                    // has its own elements.
                    unsafe { sums.block(block, elements, &x[place(length)], gradient, *tier) };
                }
            }
        }
        for ((x, input), sums) in xs.iter().zip(&call.inputs).zip(&self.sums) {
            if let (None, Some(gradient)) = (sums, input.gradient()) {
                let layout = &input.array().layout;
                // SAFETY: the gradient was checked to have an element for each of the input, and no
                // other tile has these rows.
                unsafe { array::store(gradient, layout, start, x, run, *tier) };
            }
        }
        if let TiledReduction::None(view) = &call.reduction {
            // SAFETY: there was checked to be a value per row, and no other tile has these rows.
            unsafe { view.store(rows.start, values, *tier) };
        }
        Ok(())
    }
}
