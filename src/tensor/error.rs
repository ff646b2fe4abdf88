//! The errors of tensors in host memory.
//!
//! It deliberately knows nothing of files or devices. Read [`super::Tensor`] for who returns these.

use super::{DType, Region};
use crate::shape::display_shape;
use bytesize::ByteSize;

/// An error about a tensor in host memory.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The number of elements does not match the shape.
    #[error("{elements} elements do not fill shape {}", display_shape(shape))]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The number of elements given.
        elements: usize,
    },
    /// The element type is not the required one.
    #[error("expected elements of type {expected}, found {found}")]
    DType {
        /// The required type.
        expected: DType,
        /// The type found.
        found: DType,
    },
    /// A region leaves its tensor.
    #[error("region {:?} leaves a tensor of shape {}", region.0, display_shape(shape))]
    Region {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The region asked for.
        region: Region,
    },
    /// The system refused memory for a tensor.
    #[error("there is no room in the machine's memory for a tensor of {}", ByteSize::b(*bytes))]
    Memory {
        /// The tensor's size in bytes.
        bytes: u64,
    },
    /// A dimension does not exist.
    #[error("a tensor of shape {} has no dimension {dim}", display_shape(shape))]
    Dimension {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The dimension asked for, from 0.
        dim: usize,
    },
}
