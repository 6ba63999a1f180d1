//! State arrays as their rules declare them.

/// What a rule uses a state array for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A running mean of numbers of either sign, which a few bits can hold.
    FirstMoment,
    /// A running mean or maximum of squares or absolute values, which a few bits can hold.
    SecondMoment,
    /// Values of the parameter: an average of them, the first ones, or a second sequence.
    Iterate,
    /// Anything else: step sizes, signs, sums that only grow, factors of matrices.
    Other,
}

/// A state array of a rule. Storage, checkpoints and checks follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// The name, which is PyTorch's where PyTorch has the optimizer.
    pub name: &'static str,
    /// What it is used for.
    pub role: Role,
    /// Whether its elements are never negative. A negative one would make NaN, or reverse a step.
    pub non_negative: bool,
    /// Whether it may be added after the first step of its parameter, and start from zeros there.
    pub late_start: bool,
    /// Whether it may be rounded stochastically.
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

    /// A first moment.
    pub(crate) const fn first_moment(name: &'static str) -> Self {
        Self::new(name, Role::FirstMoment)
    }

    /// A second moment, which is never negative.
    pub(crate) const fn second_moment(name: &'static str) -> Self {
        Self::new(name, Role::SecondMoment)
    }

    /// Values of the parameter.
    pub(crate) const fn iterate(name: &'static str) -> Self {
        Self::new(name, Role::Iterate)
    }

    /// An array of another kind.
    pub(crate) const fn other(name: &'static str) -> Self {
        Self::new(name, Role::Other)
    }

    /// Declares that its elements are never negative.
    pub(crate) const fn non_negative(mut self) -> Self {
        self.non_negative = true;
        self
    }

    /// Declares that it may be added after the first step.
    pub(crate) const fn late_start(mut self) -> Self {
        self.late_start = true;
        self
    }

    /// Declares that it must be rounded to nearest.
    pub(crate) const fn rounded_to_nearest(mut self) -> Self {
        self.stochastic_rounding = false;
        self
    }
}
