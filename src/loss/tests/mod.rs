//! What the losses promise beside their values, which the tests in Python hold against formulas.

mod elementwise;
mod lengths;
mod rows;

use super::*;
