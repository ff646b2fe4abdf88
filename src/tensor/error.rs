//! [`TensorError`]: the errors of tensors in host memory.
//!
//! This module deliberately knows nothing of files or devices. Read [`super::Tensor`] next, whose methods return these
//! errors.

use super::{DType, Region};
use crate::shape::display_shape;
use bytesize::ByteSize;

/// Why an operation on a tensor in host memory failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The number of elements is not the product of the shape's dimensions.
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
    /// A region is not inside the tensor, or has another number of dimensions.
    #[error("region {:?} leaves a tensor of shape {}", region.0, display_shape(shape))]
    Region {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The region asked for.
        region: Region,
    },
    /// The operating system refused the memory for a tensor.
    #[error("there is no room in the machine's memory for a tensor of {}", ByteSize::b(*bytes))]
    Memory {
        /// The tensor's size in bytes.
        bytes: u64,
    },
    /// The tensor does not have the dimension asked for.
    #[error("a tensor of shape {} has no dimension {dim}", display_shape(shape))]
    Dimension {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The dimension asked for, counted from 0.
        dim: usize,
    },
}
