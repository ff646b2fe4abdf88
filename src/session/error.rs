//! What can go wrong while ranks run a program.
//!
//! It deliberately knows no token. Read [`super::Session`] for who returns these.

use crate::comm::CommError;
use crate::device::DeviceError;
use crate::tensor::TensorError;
use std::time::Duration;

fn waiters(ranks: &[usize]) -> String {
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    if ranks.is_empty() { String::new() } else { format!("; waited for by rank {}", ranks.join(", ")) }
}

/// A session that cannot be opened, or a call that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A rank failed and ended the others.
    #[error("rank {rank} ({device}){}: {cause}", node.as_ref().map(|n| format!(", node {n}")).unwrap_or_default())]
    Rank {
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The node it was at, if any.
        node: Option<String>,
        /// Why.
        cause: Box<SessionError>,
    },
    /// The session has failed before. Nothing revives it, `Engine::reset` neither.
    #[error("the session has ended after an error: open a new one")]
    Ended,
    /// A rank is run before its weights were loaded.
    #[error("the rank has loaded nothing yet")]
    NotLoaded,
    /// A rank's program and its communicator are of different ranks.
    #[error("the program is rank {program}'s, the communicator rank {communicator}'s")]
    WrongRank {
        /// The program's rank.
        program: usize,
        /// The communicator's rank.
        communicator: usize,
    },
    /// A rank's thread panicked. It is what a [`SessionError::Rank`] is caused by.
    #[error("panicked: {words}")]
    Panicked {
        /// What the panic said.
        words: String,
    },
    /// A rank answered nothing, and no rank made progress in time.
    #[error(
        "rank {rank} ({device}){}: no progress within {deadline:?}{}",
        node.as_ref().map(|n| format!(", node {n}")).unwrap_or_default(),
        waiters(waiting)
    )]
    Stalled {
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The node it is at, if any.
        node: Option<String>,
        /// The ranks that gave up waiting for it.
        waiting: Vec<usize>,
        /// The deadline.
        deadline: Duration,
    },
    /// The positions of a call do not fit the state.
    #[error("{tokens} tokens do not fit the context of {capacity} positions")]
    Context {
        /// Positions in all, those held already included.
        tokens: usize,
        /// Positions that the state holds.
        capacity: usize,
    },
    /// An input is missing or of the wrong shape or type.
    #[error("input {name:?}: {reason}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An output does not exist.
    #[error("output {name:?} does not exist; there are: {present}")]
    Output {
        /// The name asked for.
        name: String,
        /// The outputs there are.
        present: String,
    },
    /// A plan was made for another number of devices.
    #[error("the plan is for {plan} ranks, {devices} devices are given")]
    WorldSize {
        /// Ranks in the plan.
        plan: usize,
        /// Devices at hand.
        devices: usize,
    },
    /// Communicators were made for another number of ranks than the plan.
    #[error("the plan is for {plan} ranks, the communicators are for {given}")]
    Communicators {
        /// Ranks in the plan.
        plan: usize,
        /// Ranks that the communicators connect.
        given: usize,
    },
    /// A device failed.
    #[error("{0}")]
    Device(DeviceError),
    /// An exchange failed.
    #[error("{0}")]
    Comm(CommError),
    /// A tensor is not what it should be.
    #[error("{0}")]
    Tensor(TensorError),
}

impl From<DeviceError> for SessionError {
    fn from(error: DeviceError) -> SessionError {
        SessionError::Device(error)
    }
}

impl From<CommError> for SessionError {
    fn from(error: CommError) -> SessionError {
        SessionError::Comm(error)
    }
}

impl From<TensorError> for SessionError {
    fn from(error: TensorError) -> SessionError {
        SessionError::Tensor(error)
    }
}
