//! What can be wrong with a graph as it is built.
//!
//! It deliberately knows no plan. Read [`super::Graph`] for who returns these.

use crate::ops::OpError;
use crate::tensor::DType;

/// A graph that cannot be built as asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A node fails.
    #[error("node {node}: {cause}")]
    Node {
        /// The node's name.
        node: String,
        /// Why.
        cause: Box<GraphError>,
    },
    /// An op is given elements of a type that it does not read.
    #[error("{op}: input {input} is {found}, it reads {expected}")]
    Operand {
        /// The op.
        op: &'static str,
        /// Which input, from 0.
        input: usize,
        /// The element types that the op reads at this input.
        expected: &'static str,
        /// The element type of the value given.
        found: DType,
    },
    /// A value cannot be what a graph makes of it.
    #[error("value {value:?} {reason}")]
    Value {
        /// Its name.
        value: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// A name stands twice or not at all.
    #[error("{kind} {name:?} {problem}")]
    Name {
        /// What bears the name.
        kind: &'static str,
        /// The name.
        name: String,
        /// `is defined twice`, `does not exist`.
        problem: &'static str,
    },
    /// An op does not fit its inputs.
    #[error("{0}")]
    Op(OpError),
}

impl From<OpError> for GraphError {
    fn from(error: OpError) -> GraphError {
        GraphError::Op(error)
    }
}
