//! The float types, elementary functions and scale factors.

pub mod float;
pub mod math;
pub mod scale;
