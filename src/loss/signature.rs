//! The arrays that a loss takes: the bindings check the arguments of a call by it.

/// The role of an array argument of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A prediction. The loss computes its gradient. All inputs have the same shape and type.
    Input,
    /// A number per element, with the shape and the type of the inputs.
    ElementTarget,
    /// A class index per row.
    ClassTarget,
    /// A class index per row, or a probability per class and row of the type of the inputs.
    ClassOrProbabilityTarget,
    /// A number per row, of the type of the inputs or an integer.
    RowTarget,
    /// An [`Input`](Self::Input) that may also be one number for all of the last axis, or a single
    /// number.
    RepeatedInput,
}

impl Role {
    /// Whether the loss computes the gradient by it.
    pub const fn is_input(self) -> bool {
        matches!(self, Self::Input | Self::RepeatedInput)
    }
}

/// The number of elements of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightShape {
    /// One weight per element.
    Elements,
    /// One weight per element, or one per index of the last axis.
    ElementsOrLastAxis,
    /// One weight per class.
    Classes,
}

/// The shape of the inputs of a loss, which is also that of its unreduced values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputShape {
    /// Any shape. There is one value per element.
    Any,
    /// Rows of scores, with one value per row: a single row, or classes on the second axis of any
    /// number.
    Scores,
    /// Rows that are vectors, or a single one, with one value per row.
    Vectors,
}

/// The most weights that a loss takes.
pub const MAX_WEIGHTS: usize = 2;

/// The arrays and options that a loss takes beside its numeric arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The shape of the inputs.
    pub shape: InputShape,
    /// The names and roles of the arrays of a call, in order. The first is an input.
    pub arrays: &'static [(&'static str, Role)],
    /// The names and shapes of the optional weights, at most [`MAX_WEIGHTS`].
    pub weights: &'static [(&'static str, WeightShape)],
    /// Whether rows of one target class can be ignored.
    pub ignore_index: bool,
    /// Whether the mean over target classes is divided by the sum of the weights of the targets.
    pub weighted_mean: bool,
    /// Whether [`Reduction::BatchMean`](super::driver::buffers::Reduction::BatchMean) is allowed.
    pub batch_mean: bool,
}

impl Signature {
    /// A loss of one input and one target per element.
    pub const ELEMENTWISE: Self = Self {
        shape: InputShape::Any,
        arrays: &[("input", Role::Input), ("target", Role::ElementTarget)],
        weights: &[],
        ignore_index: false,
        weighted_mean: false,
        batch_mean: false,
    };

    /// A loss of rows of scores with a target class each, and an optional weight per class.
    pub const CLASSES: Self = Self {
        shape: InputShape::Scores,
        arrays: &[("input", Role::Input), ("target", Role::ClassTarget)],
        weights: &[("weight", WeightShape::Classes)],
        ignore_index: true,
        weighted_mean: true,
        batch_mean: false,
    };
}
