//! The driver of rules that update whole arrays.

use crate::exec::isa::Tier;
use crate::exec::pool::{self, CHUNK};
use crate::exec::scratch::{Scratch, TILE};
use crate::numeric::float::Float;
use crate::ops::penalty::Shrink;
use crate::storage::view::StorageView;
use crate::sweep::prologue::Prologue;
use crate::sweep::rule::TensorRule;
use crate::sweep::segment::{Rules, Segment, StepContext, size};
use crate::sweep::state::StateSpec;
use crate::sweep::task::{Driver, cost};

/// The segments that one type of rule updates.
pub(crate) struct Tensorwise<'a, T, R> {
    segments: &'a [Segment<'a, T>],
    rules: Rules<R>,
    prologue: Prologue,
}

impl<'a, T: Float, R: TensorRule<T>> Tensorwise<'a, T, R> {
    /// Creates the driver of `segments`. `rule_at` returns the rule for a context.
    ///
    /// # Panics
    /// The number or the sizes of a segment's state arrays differ from those of the rule.
    pub(crate) fn new(
        segments: &'a [Segment<'a, T>],
        prologue: Prologue,
        rule_at: impl Fn(StepContext) -> R,
    ) -> Self {
        for segment in segments {
            let (shape, state) = (segment.shape(), segment.state());
            let specs = R::state(shape.len());
            assert_eq!(
                state.len(),
                specs.len(),
                "the rule needs one array per state"
            );
            for (StateSpec { name, .. }, array) in specs.iter().zip(state) {
                assert_eq!(
                    Some(array.len()),
                    size(&R::state_shape(name, shape)),
                    "{name} must have the size that the rule requires"
                );
            }
        }
        Self {
            rules: Rules::new(segments, rule_at),
            segments,
            prologue,
        }
    }
}

impl<T: Float, R: TensorRule<T>> Driver for Tensorwise<'_, T, R> {
    fn chunks(&self, _phase: usize) -> (usize, usize) {
        let elements: usize = self.segments.iter().map(Segment::len).sum();
        (self.segments.len(), elements * cost::<T>())
    }

    unsafe fn run(&self, _phase: usize, chunk: usize, tier: Tier) {
        let (segment, rule) = (&self.segments[chunk], self.rules.at(chunk));
        // SAFETY: a chunk is a segment, and by the contract of `run` none is processed twice.
        unsafe { update(segment, rule, &self.prologue, tier) }
    }
}

/// # Safety
/// No other code accesses the elements of the segment and of the targets of its epilogue.
unsafe fn update<T: Float, R: TensorRule<T>>(
    segment: &Segment<'_, T>,
    rule: R,
    prologue: &Prologue,
    tier: Tier,
) {
    let n = segment.len();
    let loaded = |view: &StorageView<'_, T>| {
        let mut copy = vec![T::ZERO; view.len()];
        pool::for_chunks(&mut copy, CHUNK, view.len() / 2, |from, out| {
            // SAFETY: `copy` is as long as the view, and `out` is its chunk at `from`. By this
            // function's contract no other code accesses the elements, which are only read here.
            unsafe { view.load(from, out, tier) };
        });
        copy
    };
    let mut states: Vec<Option<Vec<T>>> = segment
        .state()
        .iter()
        .map(|view| (!view.is_native()).then(|| loaded(view)))
        .collect();
    let mut p_copy = (!segment.p.is_native()).then(|| loaded(&segment.p));
    let g_copy = (!segment.g.is_native()).then(|| loaded(&segment.g));
    // SAFETY: all ranges are inside the arrays. By this function's contract no other code accesses
    // them, and here each is borrowed once at a time; the last use of a borrowed gradient is the
    // call of the rule. `Segment::new` checked that parameter and state are writable, and
    // `Segment::with_epilogue` that the targets are writable and as long as the parameter, and that
    // a gradient to be cleared is writable.
    unsafe {
        let native = "an array without a copy is native";
        let g = g_copy
            .as_deref()
            .or_else(|| segment.g.slice(0, n))
            .expect(native);
        let mut prepared = Vec::new();
        let g = if *prologue == Prologue::default() {
            g
        } else {
            prepared.resize(n, T::ZERO);
            let p = p_copy
                .as_deref()
                .or_else(|| segment.p.slice(0, n))
                .expect(native);
            pool::for_chunks(&mut prepared, CHUNK, n / 2, |from, out| {
                let to = from + out.len();
                prologue.write(&p[from..to], &g[from..to], out, tier);
            });
            &prepared
        };
        let p = p_copy
            .as_deref_mut()
            .or_else(|| segment.p.slice_mut(0, n))
            .expect(native);
        let arrays = segment.state().iter().zip(&mut states);
        let state = arrays.map(|(view, copy)| {
            let copy = copy.as_deref_mut();
            copy.or_else(|| view.slice_mut(0, view.len()))
                .expect(native)
        });
        rule.update(segment.shape(), p, g, state.collect(), tier);
        let threshold = segment.threshold;
        if threshold > T::ZERO {
            pool::for_chunks(p, CHUNK, n / 2, |_, p| tier.run(Shrink { p, threshold }));
        }
        let copies = segment.state().iter().zip(&states);
        for (view, copy) in copies.chain([(&segment.p, &p_copy)]) {
            if let Some(copy) = copy {
                view.store(0, copy, tier);
            }
        }
        let Some(epilogue) = segment.epilogue() else {
            return;
        };
        let mut scratch = Scratch::<T, 1>::new(TILE);
        let [tile] = scratch.arrays();
        for from in (0..n).step_by(TILE) {
            let to = n.min(from + TILE);
            let p = segment.p.read_into(from, &mut tile[..to - from], tier);
            epilogue.block(from, p, None, tier);
        }
        if epilogue.clear_gradient {
            segment.g.clear(0, n);
        }
    }
}
