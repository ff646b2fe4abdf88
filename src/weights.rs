//! [`Weights`]: the trait through which ranks read the elements of a model's weights, from files, from memory or from
//! another source.
//!
//! This module deliberately knows no graph and no file format. Read [`crate::import`] for the weights of model folders,
//! and [`crate::device`] next, which reads weights.

use crate::format::{Format, FormatError, Stored};
use crate::shape::display_shape;
use crate::tensor::{Region, Tensor, TensorError};
use std::collections::HashMap;
use std::sync::Arc;

/// A source of weights, which are found by name.
///
/// Each rank calls [`Weights::read`] from its own thread, and only for the regions that it holds. Implemented for
/// `HashMap<String, Tensor>`; implement it for your own source of weights.
pub trait Weights: Send + Sync {
    /// Reads the region `region` of the weight called `name`. `shape` is the shape of the whole weight as the graph
    /// declares it. Returns the elements in the type that the source stores them in.
    ///
    /// Reads no element outside the region. Errors when the source has no such weight, has it in another shape, or
    /// cannot read it.
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError>;

    /// Reads the same region in `format`: the one that the graph declares. The region's rows are whole blocks of it.
    ///
    /// Unless a source overrides it, the elements are read and encoded. A source that stores blocks returns them as they are.
    /// Errors as [`Weights::read`], and when an element cannot be stored in the format.
    fn read_stored(&self, name: &str, shape: &[usize], region: &Region, format: Format) -> Result<Stored, SourceError> {
        Stored::encode(self.read(name, shape, region)?, format).map_err(|cause| SourceError::unstored(name, cause))
    }
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
    /// The source has the weight in another shape than the graph declares.
    #[error("weight {name:?} is stored as {found}, the graph declares {expected}")]
    Shape {
        /// The weight's name.
        name: String,
        /// The shape that the graph declares.
        expected: String,
        /// The shape that the source has.
        found: String,
    },
    /// An element of a weight is NaN or infinite.
    #[error("weight {name:?} holds {value}")]
    NotFinite {
        /// The weight's name.
        name: String,
        /// The element's value: NaN or an infinity.
        value: f32,
    },
    /// A weight cannot be stored in the format that was asked for.
    #[error("weight {name:?}: {cause}")]
    Format {
        /// The weight's name.
        name: String,
        /// The reason.
        cause: FormatError,
    },
    /// The region asked for is not inside the weight, or there is not enough memory for it.
    #[error("{0}")]
    Tensor(TensorError),
    /// An error of the source's own type, such as [`ImportError`](crate::import::ImportError).
    #[error("{0}")]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// The error of the weight called `name`, which cannot be encoded or decoded because of `cause`.
    pub(crate) fn unstored(name: &str, cause: FormatError) -> SourceError {
        match cause {
            FormatError::Tensor(cause) => cause.into(),
            cause => SourceError::Format { name: name.to_string(), cause },
        }
    }

    /// Wraps an error of the source's own type as [`SourceError::Other`].
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
        SourceError::Other(Arc::new(error))
    }
}

impl From<TensorError> for SourceError {
    fn from(error: TensorError) -> SourceError {
        SourceError::Tensor(error)
    }
}
