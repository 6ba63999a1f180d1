//! Named, range-checked arguments of optimizers and losses.

use crate::error::{Error, Result};

/// The value of an argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A number or `None`.
    Optional(Option<f64>),
    /// Several numbers.
    Numbers(Vec<f64>),
    /// Two numbers, the first of which may be `None`.
    OptionalFirst(Option<f64>, f64),
    /// A flag.
    Flag(bool),
    /// A word.
    Word(String),
    /// A word or `None`.
    OptionalWord(Option<String>),
}

/// The valid range of a number. No range includes NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Finite and >= 0.
    NonNegative,
    /// Finite and > 0.
    Positive,
    /// Finite and <= 0.
    NonPositive,
    /// In `[0, 1)`.
    Decay,
    /// In `[0, 1]`.
    Unit,
    /// In `[-1, 1]`.
    Cosine,
    /// In `(0, 1)`.
    Inside,
    /// Finite and > 1.
    Above1,
    /// Finite.
    Finite,
    /// > 0, infinity included.
    Unbounded,
}

impl Range {
    fn contains(self, x: f64) -> bool {
        match self {
            Self::NonNegative => x >= 0.0 && x.is_finite(),
            Self::Positive => x > 0.0 && x.is_finite(),
            Self::NonPositive => x <= 0.0 && x.is_finite(),
            Self::Decay => (0.0..1.0).contains(&x),
            Self::Unit => (0.0..=1.0).contains(&x),
            Self::Cosine => (-1.0..=1.0).contains(&x),
            Self::Inside => x > 0.0 && x < 1.0,
            Self::Above1 => x > 1.0 && x.is_finite(),
            Self::Finite => x.is_finite(),
            Self::Unbounded => x > 0.0,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NonNegative => "finite and >= 0",
            Self::Positive => "finite and > 0",
            Self::NonPositive => "finite and <= 0",
            Self::Decay => "in [0, 1)",
            Self::Unit => "in [0, 1]",
            Self::Cosine => "in [-1, 1]",
            Self::Inside => "in (0, 1)",
            Self::Above1 => "finite and > 1",
            Self::Finite => "finite",
            Self::Unbounded => "> 0",
        }
    }

    fn check(self, name: &str, x: f64) -> Result<()> {
        if self.contains(x) {
            return Ok(());
        }
        let range = self.text();
        Err(Error::Value(format!("{name} must be {range}, got {x}")))
    }
}

/// The type of an argument and its valid values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number.
    Number(Range),
    /// A number or `None`.
    Optional(Range),
    /// An integer from 0 to this maximum.
    Count(u64),
    /// One of these integers.
    Choice(&'static [u64]),
    /// One number per range.
    Numbers(&'static [Range]),
    /// Two numbers, the first of which may be `None`.
    OptionalFirst([Range; 2]),
    /// A flag.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or `None`.
    OptionalWord(&'static [&'static str]),
}

/// A finite number, at least 0.
pub const NON_NEGATIVE: Kind = Kind::Number(Range::NonNegative);
/// Two decay rates.
pub const BETAS: Kind = Kind::Numbers(&[Range::Decay, Range::Decay]);

/// One argument of an optimizer or of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The name: the key of a parameter group, or the attribute of a loss.
    pub name: &'static str,
    /// The type and the valid values.
    pub kind: Kind,
}

impl Spec {
    fn check_word(&self, words: &[&str], word: &str) -> Result<()> {
        if words.contains(&word) {
            return Ok(());
        }
        let (name, words) = (self.name, words.join(", "));
        Err(Error::Value(format!(
            "{name} must be one of {words}; got {word:?}"
        )))
    }

    /// Checks the type and the range of a value.
    ///
    /// # Errors
    /// The value has the wrong type or is out of range.
    pub fn check(&self, value: &Value) -> Result<()> {
        let name = self.name;
        match (self.kind, value) {
            (Kind::Number(range), &Value::Number(x))
            | (Kind::Optional(range), &Value::Optional(Some(x))) => range.check(name, x),
            (Kind::Optional(_), Value::Optional(None))
            | (Kind::OptionalWord(_), Value::OptionalWord(None))
            | (Kind::Flag, Value::Flag(_)) => Ok(()),
            (Kind::Count(most), &Value::Number(x)) => {
                if x >= 0.0 && x <= most as f64 && x.fract() == 0.0 {
                    return Ok(());
                }
                Err(Error::Value(format!(
                    "{name} must be a whole number from 0 to {most}, got {x}"
                )))
            }
            (Kind::Choice(numbers), &Value::Number(x)) => {
                if numbers.iter().any(|&number| x == number as f64) {
                    return Ok(());
                }
                let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
                let numbers = numbers.join(" or ");
                Err(Error::Value(format!("{name} must be {numbers}, got {x}")))
            }
            (Kind::Numbers(ranges), Value::Numbers(numbers)) if ranges.len() == numbers.len() => {
                let mut pairs = ranges.iter().zip(numbers).enumerate();
                pairs.try_for_each(|(i, (range, &x))| range.check(&format!("{name}[{i}]"), x))
            }
            (Kind::OptionalFirst(ranges), &Value::OptionalFirst(a, b)) => {
                if let Some(a) = a {
                    ranges[0].check(&format!("{name}[0]"), a)?;
                }
                ranges[1].check(&format!("{name}[1]"), b)
            }
            (Kind::Word(words), Value::Word(word))
            | (Kind::OptionalWord(words), Value::OptionalWord(Some(word))) => {
                self.check_word(words, word)
            }
            (kind, _) => Err(Error::Type(format!(
                "{name} must be a {kind:?}, got {value:?}"
            ))),
        }
    }
}

/// A type of a field in a struct of arguments.
pub trait Field: Sized {
    /// Converts a value that [`Spec::check`] accepted. Returns `None` for a value of another type.
    fn take(value: &Value) -> Option<Self>;
}

macro_rules! field {
    ($($type:ty: $pattern:pat => $field:expr,)*) => {
        $(impl Field for $type {
            fn take(value: &Value) -> Option<Self> {
                if let $pattern = value { Some($field) } else { None }
            }
        })*
    };
}

field! {
    f64: Value::Number(x) => *x,
    u64: Value::Number(x) => *x as u64,
    Option<f64>: Value::Optional(x) => *x,
    (Option<f64>, f64): Value::OptionalFirst(a, b) => (*a, *b),
    bool: Value::Flag(flag) => *flag,
    String: Value::Word(word) => word.clone(),
    Option<String>: Value::OptionalWord(word) => word.clone(),
}

impl<const N: usize> Field for [f64; N] {
    fn take(value: &Value) -> Option<Self> {
        if let Value::Numbers(numbers) = value {
            numbers.as_slice().try_into().ok()
        } else {
            None
        }
    }
}

/// Checks the number of values, and each value against its spec.
///
/// # Errors
/// The number of values is wrong, or a value has the wrong type or is out of range.
pub(crate) fn check(specs: &[Spec], values: &[Value]) -> Result<()> {
    if specs.len() != values.len() {
        let (expected, found) = (specs.len(), values.len());
        return Err(Error::Value(format!(
            "expected {expected} arguments, got {found}"
        )));
    }
    let mut pairs = specs.iter().zip(values);
    pairs.try_for_each(|(spec, value)| spec.check(value))
}

/// The arguments of one optimizer or loss.
pub trait Hyper: Sized {
    /// The names, types and ranges of the arguments, in the order of the struct's fields.
    const SPECS: &'static [Spec];

    /// Builds the struct from one value per spec, in order.
    ///
    /// # Errors
    /// A value has the wrong type or is out of range, or two values contradict each other.
    fn from_values(values: &[Value]) -> Result<Self>;
}

/// Declares a struct of arguments and implements [`Hyper`] for it. The syntax is
/// `struct Name { field: type, Kind; ... } check |it| expression`, or `struct Name;` without
/// arguments.
macro_rules! hyper {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty, $kind:expr;)* }
     $(check |$it:ident| $check:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $crate::hyper::Hyper for $name {
            const SPECS: &'static [$crate::hyper::Spec] = &[
                $($crate::hyper::Spec { name: stringify!($field), kind: $kind },)*
            ];

            fn from_values(values: &[$crate::hyper::Value]) -> $crate::error::Result<Self> {
                $crate::hyper::check(Self::SPECS, values)?;
                let mut values = values.iter();
                let mut next = || values.next().expect("one value per spec");
                let it = Self {
                    $($field: $crate::hyper::Field::take(next()).expect("checked above"),)*
                };
                $({ let $it = &it; $check?; })?
                Ok(it)
            }
        }
    };
    ($(#[$doc:meta])* pub struct $name:ident;) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name;

        impl $crate::hyper::Hyper for $name {
            const SPECS: &'static [$crate::hyper::Spec] = &[];

            fn from_values(values: &[$crate::hyper::Value]) -> $crate::error::Result<Self> {
                $crate::hyper::check(Self::SPECS, values)?;
                Ok(Self)
            }
        }
    };
}
pub(crate) use hyper;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_rejected_by_name() {
        let spec = |kind| Spec { name: "it", kind };
        let cases: [(Range, &[f64], &[f64]); 10] = [
            (Range::NonNegative, &[0.0, 1e300], &[-1e-300]),
            (Range::Positive, &[1e-300], &[0.0]),
            (Range::NonPositive, &[0.0, -1.0], &[1e-300]),
            (Range::Decay, &[0.0, 0.999], &[1.0, -1e-9]),
            (Range::Unit, &[0.0, 1.0], &[1.1]),
            (Range::Cosine, &[-1.0, 1.0], &[-1.1, 1.1]),
            (Range::Inside, &[0.5], &[0.0, 1.0]),
            (Range::Above1, &[1.2], &[1.0]),
            (Range::Finite, &[-3.0], &[f64::NEG_INFINITY]),
            (Range::Unbounded, &[f64::INFINITY], &[0.0]),
        ];
        for (range, good, bad) in cases {
            for &x in good {
                assert_eq!(spec(Kind::Number(range)).check(&Value::Number(x)), Ok(()));
            }
            for &x in bad.iter().chain([&f64::NAN]) {
                let error = spec(Kind::Number(range)).check(&Value::Number(x));
                assert!(matches!(error, Err(Error::Value(m)) if m.starts_with("it must be ")));
                let error = spec(Kind::Optional(range)).check(&Value::Optional(Some(x)));
                assert!(matches!(error, Err(Error::Value(_))));
            }
        }
    }

    #[test]
    fn values_of_the_wrong_type_or_range_are_rejected() {
        let betas = Spec {
            name: "betas",
            kind: BETAS,
        };
        assert_eq!(betas.check(&Value::Numbers(vec![0.9, 0.0])), Ok(()));
        assert!(matches!(
            betas.check(&Value::Numbers(vec![0.9, 1.0])),
            Err(Error::Value(m)) if m.starts_with("betas[1] ")
        ));
        assert!(matches!(
            betas.check(&Value::Number(0.9)),
            Err(Error::Type(_))
        ));
        let found = check(&[betas], &[]);
        assert!(matches!(found, Err(Error::Value(m)) if m == "expected 1 arguments, got 0"));
        let steps = Spec {
            name: "ns_steps",
            kind: Kind::Count(99),
        };
        assert_eq!(steps.check(&Value::Number(99.0)), Ok(()));
        for x in [-1.0, 100.0, 0.5, f64::NAN] {
            assert!(steps.check(&Value::Number(x)).is_err());
        }
        let p = Spec {
            name: "p",
            kind: Kind::Choice(&[1, 2]),
        };
        assert_eq!(p.check(&Value::Number(2.0)), Ok(()));
        for x in [0.0, 1.5, 3.0, f64::NAN] {
            let expected = format!("p must be 1 or 2, got {x}");
            assert_eq!(p.check(&Value::Number(x)), Err(Error::Value(expected)));
        }
    }
}
