//! Declarations of state arrays.

/// The purpose of a state array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A running mean of signed numbers. May be stored in low precision.
    FirstMoment,
    /// A running mean or maximum of squares or absolute values. May be stored in low precision.
    SecondMoment,
    /// Values of the parameter: their average, their initial values, or a second sequence.
    Iterate,
    /// Another array: step sizes, signs, growing sums, factors of matrices.
    Other,
}

/// The declaration of a state array, which determines its storage, checkpoints and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// The name. It is PyTorch's name if PyTorch has the optimizer.
    pub name: &'static str,
    /// The purpose.
    pub role: Role,
    /// Whether the elements are never negative. A negative one would produce NaN or reverse a
    /// step.
    pub non_negative: bool,
    /// Whether the array may be added, with zeros, after the first step of its parameter.
    pub late_start: bool,
    /// Whether stochastic rounding is allowed.
    pub stochastic_rounding: bool,
}

impl StateSpec {
    const fn new(name: &'static str, role: Role) -> Self {
        Self {
            name,
            role,
            non_negative: matches!(role, Role::SecondMoment),
            late_start: false,
            stochastic_rounding: true,
        }
    }

    /// Creates the declaration of a first moment.
    pub(crate) const fn first_moment(name: &'static str) -> Self {
        Self::new(name, Role::FirstMoment)
    }

    /// Creates the declaration of a second moment, which is never negative.
    pub(crate) const fn second_moment(name: &'static str) -> Self {
        Self::new(name, Role::SecondMoment)
    }

    /// Creates the declaration of an array with values of the parameter.
    pub(crate) const fn iterate(name: &'static str) -> Self {
        Self::new(name, Role::Iterate)
    }

    /// Creates the declaration of an array with another purpose.
    pub(crate) const fn other(name: &'static str) -> Self {
        Self::new(name, Role::Other)
    }

    /// Declares that the elements are never negative.
    pub(crate) const fn non_negative(mut self) -> Self {
        self.non_negative = true;
        self
    }

    /// Declares that the array may be added after the first step.
    pub(crate) const fn late_start(mut self) -> Self {
        self.late_start = true;
        self
    }

    /// Declares that the array must be rounded to nearest.
    pub(crate) const fn rounded_to_nearest(mut self) -> Self {
        self.stochastic_rounding = false;
        self
    }
}
