//! What a kernel's caller can do wrong.

use std::fmt;

/// A refusal, always before anything was written. The bindings raise one exception per variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Out of range, of the wrong shape, or not to be done now.
    Value(String),
    /// Of the wrong type.
    Type(String),
    /// A class index outside the classes.
    Index(String),
    /// Changed by another thread during the call.
    Changed(String),
    /// A gradient that is not finite: the number of its parameter, if this process has it.
    NotFinite(Option<usize>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(message)
            | Self::Type(message)
            | Self::Index(message)
            | Self::Changed(message) => f.write_str(message),
            Self::NotFinite(Some(index)) => {
                write!(f, "gradient {index} has elements that are not finite")
            }
            Self::NotFinite(None) => f.write_str("a gradient of another process is not finite"),
        }
    }
}

impl std::error::Error for Error {}

/// What a fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
