//! Tests of the drivers and the norm against formulas, and of loops against one another.

mod norm;
mod registers;
mod two_pass;
