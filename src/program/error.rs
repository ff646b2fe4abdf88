//! What can go wrong when a plan is lowered to a program, and when a program is held against devices.
//!
//! It deliberately knows no device but by name and size. Read `lower.rs` and `room.rs` for who returns these.

use crate::message::list;
use crate::ops::OpError;
use crate::plan::PlanError;
use crate::sharding::ShardingError;
use bytesize::ByteSize;

/// A program cannot be made of a plan, or does not fit the devices.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// A node cannot be lowered.
    #[error("plan, node {node}: {cause}")]
    Node {
        /// The node.
        node: String,
        /// Why.
        cause: Box<ProgramError>,
    },
    /// A state would be held in two different cuts.
    #[error("node {node} uses the state {state} in another cut than the node that writes it")]
    State {
        /// The node.
        node: String,
        /// The state.
        state: String,
    },
    /// A value is read before any node makes it.
    #[error("value {value:?} is used before it is made")]
    Unmade {
        /// The value.
        value: String,
    },
    /// Devices lack memory; every one that does is listed.
    #[error(
        "the model does not fit:{}\nUse more devices, other ratios, a smaller context or a smaller model.",
        list(shortfalls)
    )]
    DoesNotFit {
        /// One entry per device, or memory that several share, that is too small.
        shortfalls: Vec<Shortfall>,
    },
    /// Tensors are larger than what a device binds or allocates in one piece; every one that is, is listed.
    #[error("the model does not fit:{}", list(tensors))]
    TooWide {
        /// One entry per rank and tensor.
        tensors: Vec<TooWide>,
    },
    /// The plan does not fit the graph.
    #[error("{0}")]
    Plan(PlanError),
    /// An op that moves data between placements does not fit its inputs.
    #[error("{0}")]
    Op(OpError),
    /// A cut is not what a rule allows.
    #[error("{0}")]
    Sharding(ShardingError),
}

/// How much memory a device lacks.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{} ({device}){}: needs {} ({needed} bytes), has {} ({available} bytes), short of {}",
    ranks_of(ranks),
    if ranks.len() > 1 { ", in one memory together" } else { "" },
    ByteSize::b(*needed),
    ByteSize::b(*available),
    ByteSize::b(needed.saturating_sub(*available))
)]
#[doc(hidden)]
pub struct Shortfall {
    /// The ranks that share the memory.
    pub ranks: Vec<usize>,
    /// Their device's name.
    pub device: String,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes there are.
    pub available: u64,
}

/// A tensor that a device cannot hold in one piece.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "rank {rank} ({device}): {tensor} takes {}, in one piece the device holds at most {}: {advice}",
    ByteSize::b(*bytes),
    ByteSize::b(*largest)
)]
#[doc(hidden)]
pub struct TooWide {
    /// The rank.
    pub rank: usize,
    /// Its device's name.
    pub device: String,
    /// The tensor's name.
    pub tensor: String,
    /// Its size.
    pub bytes: u64,
    /// The largest that the device holds in one piece.
    pub largest: u64,
    /// What to do.
    pub advice: &'static str,
}

/// `rank 0`, or `ranks 0, 1`.
fn ranks_of(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    format!("rank{} {}", if ranks.len() > 1 { "s" } else { "" }, numbers.join(", "))
}

impl From<PlanError> for ProgramError {
    fn from(error: PlanError) -> ProgramError {
        ProgramError::Plan(error)
    }
}

impl From<OpError> for ProgramError {
    fn from(error: OpError) -> ProgramError {
        ProgramError::Op(error)
    }
}

impl From<ShardingError> for ProgramError {
    fn from(error: ShardingError) -> ProgramError {
        ProgramError::Sharding(error)
    }
}
