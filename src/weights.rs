//! Where the elements of a model's weights come from: files, memory, or anything else that reads a region of a tensor.
//!
//! It deliberately knows no graph and no file format. Read [`crate::import`] for the weights of model folders, and
//! [`crate::device`] for who reads weights.

use crate::shape::display_shape;
use crate::tensor::{Region, Tensor, TensorError};
use std::collections::HashMap;
use std::sync::Arc;

/// Gives the elements of weights, by name.
///
/// A rank asks only for the regions that it holds, from a thread of its own.
pub trait Weights: Send + Sync {
    /// The region `region` of the weight called `name`, whose whole resolved shape is `shape`, in the type that it is stored in.
    ///
    /// Reads no element outside the region. Errors when there is no such weight or it cannot be read.
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError>;
}

impl Weights for HashMap<String, Tensor> {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        let tensor = self.get(name).ok_or_else(|| SourceError::Missing { name: name.to_string() })?;
        if tensor.shape() != shape {
            let (expected, found) = (display_shape(shape), display_shape(tensor.shape()));
            return Err(SourceError::Shape { name: name.to_string(), expected, found });
        }
        Ok(tensor.slice(region)?)
    }
}

/// Why a weight, or another file of a model, cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no such weight.
    #[error("weight {name:?} does not exist")]
    Missing {
        /// The weight's name.
        name: String,
    },
    /// A weight is stored in another shape than the graph declares.
    #[error("weight {name:?} is stored as {found}, the graph declares {expected}")]
    Shape {
        /// The weight's name.
        name: String,
        /// The shape that the graph declares.
        expected: String,
        /// The shape found.
        found: String,
    },
    /// The elements of a weight are not finite numbers.
    #[error("weight {name:?} holds {value}")]
    NotFinite {
        /// The weight's name.
        name: String,
        /// NaN or an infinity.
        value: f32,
    },
    /// The region asked for is not inside the weight, or there is no memory for it.
    #[error("{0}")]
    Tensor(TensorError),
    /// The source has an error of its own, such as [`ImportError`](crate::import::ImportError).
    #[error("{0}")]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// A source's own error.
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
        SourceError::Other(Arc::new(error))
    }
}

impl From<TensorError> for SourceError {
    fn from(error: TensorError) -> SourceError {
        SourceError::Tensor(error)
    }
}
