//! Named, range-checked hyperparameters.

use crate::error::{Error, Result};

/// A hyperparameter as a caller gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// Two numbers.
    Pair([f64; 2]),
    /// A flag.
    Flag(bool),
    /// One of a few words.
    Word(String),
}

/// The type of a hyperparameter, with the values it may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A finite number, at least 0.
    NonNegative,
    /// Two decay rates in `[0, 1)`.
    Decays,
    /// A flag.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One hyperparameter of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Its name in a parameter group.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
}

impl Spec {
    fn wrong_type<T>(&self, expected: &str, value: &Value) -> Result<T> {
        Err(Error::Type(format!(
            "{} must be {expected}, got {value:?}",
            self.name
        )))
    }

    /// The value, if it may be this hyperparameter.
    ///
    /// # Errors
    /// The wrong type, or out of range.
    pub fn check(&self, value: &Value) -> Result<()> {
        let name = self.name;
        match (self.kind, value) {
            (Kind::NonNegative, &Value::Number(x)) => {
                if x >= 0.0 && x.is_finite() {
                    Ok(())
                } else {
                    Err(Error::Value(format!(
                        "{name} must be finite and >= 0, got {x}"
                    )))
                }
            }
            (Kind::Decays, Value::Pair(pair)) => {
                if pair.iter().all(|x| (0.0..1.0).contains(x)) {
                    Ok(())
                } else {
                    let [a, b] = pair;
                    Err(Error::Value(format!(
                        "{name} must both be in [0, 1), got ({a}, {b})"
                    )))
                }
            }
            (Kind::Flag, Value::Flag(_)) => Ok(()),
            (Kind::Word(words), Value::Word(word)) => {
                if words.contains(&word.as_str()) {
                    Ok(())
                } else {
                    let words = words.join(", ");
                    Err(Error::Value(format!(
                        "{name} must be one of {words}; got {word:?}"
                    )))
                }
            }
            (Kind::NonNegative, _) => self.wrong_type("a number", value),
            (Kind::Decays, _) => self.wrong_type("a pair of numbers", value),
            (Kind::Flag, _) => self.wrong_type("a bool", value),
            (Kind::Word(_), _) => self.wrong_type("a string", value),
        }
    }
}

/// A field of a hyperparameter struct, taken from a value that [`Spec::check`] has passed.
pub trait Field: Sized {
    /// The field, or `None` for a value of another type.
    fn take(value: &Value) -> Option<Self>;
}

impl Field for f64 {
    fn take(value: &Value) -> Option<Self> {
        if let Value::Number(x) = *value {
            Some(x)
        } else {
            None
        }
    }
}

impl Field for [f64; 2] {
    fn take(value: &Value) -> Option<Self> {
        if let Value::Pair(pair) = *value {
            Some(pair)
        } else {
            None
        }
    }
}

impl Field for String {
    fn take(value: &Value) -> Option<Self> {
        if let Value::Word(word) = value {
            Some(word.clone())
        } else {
            None
        }
    }
}

impl Field for bool {
    fn take(value: &Value) -> Option<Self> {
        if let Value::Flag(flag) = *value {
            Some(flag)
        } else {
            None
        }
    }
}

/// The hyperparameters of one optimizer.
pub trait Hyper: Sized {
    /// Their names and ranges, in the order of the struct.
    const SPECS: &'static [Spec];

    /// Builds them from one value per spec, in order.
    ///
    /// # Errors
    /// A value has the wrong type or is out of range, or two do not go together.
    fn from_values(values: &[Value]) -> Result<Self>;
}

/// Declares a struct of hyperparameters and implements [`Hyper`] for it:
/// `struct Name { field: type, Kind; ... } check |it| expression`.
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
                for (spec, value) in Self::SPECS.iter().zip(values) {
                    spec.check(value)?;
                }
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
}
pub(crate) use hyper;

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Spec = Spec {
        name: "lr",
        kind: Kind::NonNegative,
    };

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        assert_eq!(RATE.check(&Value::Number(0.0)), Ok(()));
        for x in [-1e-300, f64::NAN, f64::INFINITY] {
            let error = RATE.check(&Value::Number(x)).unwrap_err();
            assert!(
                matches!(&error, Error::Value(m) if m.starts_with("lr ")),
                "{error}"
            );
        }
        assert!(matches!(
            RATE.check(&Value::Flag(true)),
            Err(Error::Type(_))
        ));
    }
}
