//! The errors of encoding weights.
//!
//! It deliberately knows no weight by name. Read [`crate::weights::SourceError`] for the error that carries one.

use super::Format;
use crate::shape::display_shape;
use crate::tensor::{DType, TensorError};

/// Why elements cannot be stored in a format.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A row is not a whole number of blocks.
    #[error("rows of {} are not whole blocks of {} elements, as {format} stores them", display_shape(shape), format.block())]
    Blocks {
        /// The format.
        format: Format,
        /// The shape whose rows do not fit.
        shape: Vec<usize>,
    },
    /// The number of bytes is not that of the shape in the format.
    #[error("{bytes} bytes do not fill shape {} in {format}", display_shape(shape))]
    Length {
        /// The format.
        format: Format,
        /// The shape.
        shape: Vec<usize>,
        /// The number of bytes given.
        bytes: usize,
    },
    /// An element is too large for the format, or not finite.
    #[error("the element {value} cannot be stored in {format}")]
    Value {
        /// The format.
        format: Format,
        /// The element.
        value: f32,
    },
    /// Numbers were to be stored as indices, or indices as numbers.
    #[error("elements of type {found} cannot be stored in {format}")]
    DType {
        /// The format.
        format: Format,
        /// The type of the elements.
        found: DType,
    },
    /// There is not enough memory for the result.
    #[error("{0}")]
    Tensor(TensorError),
}

impl From<TensorError> for FormatError {
    fn from(error: TensorError) -> FormatError {
        FormatError::Tensor(error)
    }
}
