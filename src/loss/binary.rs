//! Binary cross-entropy: `-(y ln(p) + (1 - y) ln(1 - p))`, of probabilities and of logits.

use crate::error::{Error, Result};
use crate::hyper::hyper;
use crate::loss::call::{Call, Loss};
use crate::loss::checks::changed;
use crate::loss::driver::buffers::piece;
use crate::loss::driver::pointwise::{ELEMENTARY, Each, LONGEST, Piecewise, Pointwise};
use crate::loss::logistic::{EachLogit, Logistic, Logistics, OfLogit};
use crate::loss::signature::{Signature, WeightShape};
use crate::loss::weights;
use crate::numeric::float::Float;
use crate::numeric::math::Math;
use crate::reduce::{self, Measure};

hyper! {
    /// The cross-entropy of a probability, with logarithms of at least -100 as in PyTorch.
    pub struct Bce;
}

impl Loss for Bce {
    const SIGNATURE: Signature = Signature {
        weights: &[("weight", WeightShape::Elements)],
        ..Signature::ELEMENTWISE
    };

    const CHECKED: &'static [&'static str] = &["input", "target"];

    fn check_elements<T: Math>(&self, name: &str, elements: &[T], first: usize) -> Result<()> {
        let counts = reduce::measure(&[elements], Outside);
        name_first(name, elements, counts[0], first)
    }

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        check(call.input(), call.numbers()?)?;
        weights::compute(Each(*self), call)
    }
}

impl<T: Math> Pointwise<T> for Bce {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    #[inline(always)]
    fn at(self, x: T, y: T) -> (T, T) {
        // The constants of PyTorch, where the second is a float32 for every type.
        let [least, variance] = [-100.0, f64::from(1e-12_f32)].map(T::from_f64);
        let ln = x.ln().max_or_nan(least);
        let ln_rest = (-x).ln_1p().max_or_nan(least);
        let value = -(y * ln + (T::ONE - y) * ln_rest);
        (value, (x - y) / (x * (T::ONE - x)).max_or_nan(variance))
    }
}

/// Counts the numbers outside [0, 1]. NaN is not counted, and gives a loss of NaN.
#[derive(Clone, Copy)]
struct Outside;

impl Measure for Outside {
    #[inline(always)]
    fn add(self, count: f64, x: f64) -> f64 {
        count + f64::from(x < 0.0) + f64::from(x > 1.0)
    }
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// Checks that all elements are probabilities.
///
/// # Errors
/// Names the first input that is not, or else the first target.
fn check<T: Float>(input: &[T], target: &[T]) -> Result<()> {
    let counts = reduce::measure(&[input, target], Outside);
    name_first("input", input, counts[0], 0)?;
    name_first("target", target, counts[1], 0)
}

/// The error of the first of the elements that is not a probability, where there are `count` such
/// ones, and `first` elements of the array come before.
fn name_first<T: Float>(name: &str, elements: &[T], count: f64, first: usize) -> Result<()> {
    if count == 0.0 {
        return Ok(());
    }
    let outside = |x: &T| *x < T::ZERO || *x > T::ONE;
    let mut found = elements.iter().enumerate().filter(|(_, x)| outside(x));
    let (index, x) = found.next().ok_or_else(|| changed(name))?;
    let index = first + index;
    Err(Error::Value(format!(
        "{name} must be in [0, 1], got {x:?} as {name}.flat[{index}]"
    )))
}

hyper! {
    /// The cross-entropy of the sigmoid of a logit.
    pub struct BceWithLogits;
}

impl Loss for BceWithLogits {
    const SIGNATURE: Signature = Signature {
        weights: &[
            ("weight", WeightShape::Elements),
            ("pos_weight", WeightShape::ElementsOrLastAxis),
        ],
        ..Signature::ELEMENTWISE
    };

    fn compute<T: Math>(&self, call: Call<'_, T>) -> Result<f64> {
        let Some(pos_weight) = call.weights[1] else {
            return weights::compute(EachLogit(*self), call);
        };
        let len = call.numbers()?.len();
        if pos_weight.is_empty() && len > 0 {
            return Err(Error::Value("pos_weight must have an element".into()));
        }
        let mut memory = Vec::new();
        let loss = WithPositives::new(pos_weight, len, &mut memory);
        weights::compute(loss, call)
    }
}

/// The value and the derivative where the positives have weight `w`. For a label of 0 or 1 the
/// terms do not cancel each other.
#[inline(always)]
fn of_logit<T: Math>(x: T, y: T, w: T, p: Logistic<T>) -> (T, T) {
    let (positive, negative) = (w * y, T::ONE - y);
    // The weights of the answer with the sign of x, and of the other answer.
    let (right, wrong) = if x > T::ZERO {
        (positive, negative)
    } else {
        (negative, positive)
    };
    let value = wrong.weigh(x.abs()) + (right + wrong) * p.cost;
    let slope = wrong * p.large - right * p.small;
    (value, if x > T::ZERO { slope } else { -slope })
}

impl<T: Math> OfLogit<T> for BceWithLogits {
    #[inline(always)]
    fn at(self, x: T, y: T, p: Logistic<T>) -> (T, T) {
        of_logit(x, y, T::ONE, p)
    }
}

/// [`BceWithLogits`] with a weight of the positive part: one per class, which is an index of the
/// last axis, or one per element.
#[derive(Clone, Copy)]
struct WithPositives<'a, T> {
    weights: &'a [T],
    period: usize,
}

impl<'a, T: Float> WithPositives<'a, T> {
    /// Weights of `len` elements. Weights of classes are repeated in `memory`, so that a whole
    /// piece can be read from any of them on.
    fn new(weights: &'a [T], len: usize, memory: &'a mut Vec<T>) -> Self {
        let period = weights.len();
        if period == len {
            return Self { weights, period };
        }
        memory.extend(weights.iter().cycle().take(period + LONGEST));
        Self {
            weights: memory,
            period,
        }
    }
}

impl<T: Math> Piecewise<T> for WithPositives<'_, T> {
    type Value = T;

    const WORK: usize = ELEMENTARY;

    const IN_STAGES: bool = true;

    #[inline(always)]
    fn piece<const N: usize>(
        self,
        start: usize,
        n: usize,
        x: &[T; N],
        y: &[T; N],
    ) -> ([T; N], [T; N]) {
        let w: [T; N] = piece(self.weights, start % self.period, n);
        let p = Logistics::of(x);
        let (mut values, mut derivatives) = ([T::ZERO; N], [T::ZERO; N]);
        for i in 0..N {
            (values[i], derivatives[i]) = of_logit(x[i], y[i], w[i], p.get(i));
        }
        (values, derivatives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (value, slope) = Bce.at(0.25_f64, 1.0);
        assert!((value - 4.0_f64.ln()).abs() < 1e-15 && (slope + 4.0).abs() < 1e-15);
        assert_eq!(Bce.at(0.0_f64, 1.0), (100.0, -1.0 / f64::from(1e-12_f32)));
        assert_eq!(Bce.at(0.0_f64, 0.0), (0.0, 0.0));
        let (value, slope) = BceWithLogits.of(0.0_f64, 1.0);
        assert!((value - 2.0_f64.ln()).abs() < 1e-15 && slope == -0.5);
        assert!((of_logit(0.0_f64, 1.0, 3.0, Logistic::of(0.0)).1 + 1.5).abs() < 1e-15);
    }

    #[test]
    fn tails() {
        // The gradient of a confident right answer does not vanish.
        let (value, slope) = BceWithLogits.of(80.0_f32, 1.0);
        let exact = (-80.0_f64).exp();
        assert!((f64::from(value) / exact - 1.0).abs() < 3e-7);
        assert!((f64::from(slope) / -exact - 1.0).abs() < 3e-7);
        for (x, y) in [(f32::INFINITY, 1.0), (f32::NEG_INFINITY, 0.0)] {
            let (value, slope) = BceWithLogits.of(x, y);
            assert!(value == 0.0 && slope == 0.0);
            let (value, slope) = BceWithLogits.of(x, 1.0 - y);
            assert!(value == f32::INFINITY && slope.abs() == 1.0);
        }
        assert!(BceWithLogits.of(f32::NAN, 1.0).1.is_nan());
    }

    #[test]
    #[cfg_attr(miri, ignore = "many numbers through safe code")]
    fn the_first_element_outside_the_unit_interval_is_named() {
        let mut x = vec![0.5; 10_000];
        assert_eq!(check(&x, &x), Ok(()));
        x[9_000] = f64::NAN;
        assert_eq!(check(&x, &[0.0, 1.0]), Ok(()));
        (x[7_000], x[8_000]) = (1.5, -0.1);
        for (found, name) in [(check(&x, &[]), "input"), (check(&[], &x), "target")] {
            let expected = format!("{name} must be in [0, 1], got 1.5 as {name}.flat[7000]");
            assert_eq!(found, Err(Error::Value(expected)));
        }
    }
}
