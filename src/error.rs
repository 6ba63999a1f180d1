//! Errors returned to callers.

use std::fmt;

/// An error. It is returned before anything is written. The bindings raise one exception class per
/// variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A value is out of range, a shape is wrong, or the operation is not possible in this state.
    Value(String),
    /// A value has the wrong type.
    Type(String),
    /// A class index is out of range.
    Index(String),
    /// Another thread changed an object during the call.
    Changed(String),
    /// A gradient is not finite. Holds the index of its parameter if this process has it.
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

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;
