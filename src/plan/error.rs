//! What can be wrong with a plan.
//!
//! It deliberately knows no program and no device. Read [`super::Plan`] for who returns these.

use crate::sharding::ShardingError;

/// A plan that cannot be made, read or used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A plan file cannot be read.
    #[error("the plan cannot be read: {0}")]
    Format(String),
    /// A plan says of a node, or of its ranks, what cannot be so.
    #[error("{0}")]
    Content(String),
    /// A plan names its model by a hash of the older form, which cannot be checked any more.
    #[error("the plan was made by an older fanfold, which named models by 16 digits: make a new one for this model")]
    Older,
    /// A plan was made for another model.
    #[error(
        "the plan is for model {plan}, this is {model}: make a plan for this one, with its weights in the same format"
    )]
    Model {
        /// The plan's model.
        plan: String,
        /// The model at hand.
        model: String,
    },
    /// A node's cut cannot be used.
    #[error("plan, node {node}: {cause}")]
    Node {
        /// The node.
        node: String,
        /// Why.
        cause: Box<PlanError>,
    },
    /// `exact` cannot be promised.
    #[error("an exact answer cannot be promised: {0}")]
    Inexact(String),
    /// A cut or the ratios are not what a rule allows.
    #[error("{0}")]
    Sharding(ShardingError),
}

impl From<ShardingError> for PlanError {
    fn from(error: ShardingError) -> PlanError {
        PlanError::Sharding(error)
    }
}
