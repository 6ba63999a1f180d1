//! Tests of the drivers and the norm against formulas.

mod norm;
mod two_pass;
