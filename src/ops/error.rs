//! What can be wrong with an op: its inputs, its attributes, or a part of it that is evaluated.
//!
//! It deliberately knows no graph. Read [`super::Operator`] for who returns these.

use crate::sharding::ShardingError;
use crate::tensor::TensorError;

/// An op's inputs or attributes do not fit, or its evaluation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// An op is used on the wrong number of inputs.
    #[error("{op} takes {expected} inputs, {found} given")]
    Arity {
        /// The op.
        op: &'static str,
        /// How many it takes.
        expected: &'static str,
        /// How many it got.
        found: usize,
    },
    /// An op's attributes are contradictory.
    #[error("{op}: {reason}")]
    Attribute {
        /// The op.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Its sharding rule does not fit its inputs.
    #[error("{0}")]
    Sharding(ShardingError),
    /// A tensor that it reads or makes is not what it should be.
    #[error("{0}")]
    Tensor(TensorError),
}

impl From<ShardingError> for OpError {
    fn from(error: ShardingError) -> OpError {
        OpError::Sharding(error)
    }
}

impl From<TensorError> for OpError {
    fn from(error: TensorError) -> OpError {
        OpError::Tensor(error)
    }
}
