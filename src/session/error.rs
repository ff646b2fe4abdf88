//! The errors of opening a session and of running a program on its ranks.
//!
//! It deliberately knows no token and no model. Read [`super::Session`] and [`super::Rank`] for who returns which.

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
    /// A rank failed, which ended the session.
    #[error("rank {rank} ({device}){}: {cause}", node.as_ref().map(|n| format!(", node {n}")).unwrap_or_default())]
    Rank {
        /// The rank's number.
        rank: usize,
        /// The name of the rank's device.
        device: String,
        /// The node that the rank was running, if it was in a call.
        node: Option<String>,
        /// The rank's own error.
        cause: Box<SessionError>,
    },
    /// The session failed in an earlier call. It stays unusable, even after `Engine::reset`: open a new one.
    #[error("the session has ended after an error: open a new one")]
    Ended,
    /// A rank was asked to run before it loaded its weights.
    #[error("the rank has loaded nothing yet")]
    NotLoaded,
    /// A rank was made of the program of one rank and the communicator of another.
    #[error("the program is rank {program}'s, the communicator rank {communicator}'s")]
    WrongRank {
        /// The program's rank.
        program: usize,
        /// The communicator's rank.
        communicator: usize,
    },
    /// Code that a rank called panicked. Always the cause inside a [`SessionError::Rank`].
    #[error("panicked: {words}")]
    Panicked {
        /// The panic's message.
        words: String,
    },
    /// A rank did not answer, and no rank made progress for as long as the deadline.
    #[error(
        "rank {rank} ({device}){}: no progress within {deadline:?}{}",
        node.as_ref().map(|n| format!(", node {n}")).unwrap_or_default(),
        waiters(waiting)
    )]
    Stalled {
        /// The rank's number.
        rank: usize,
        /// The name of the rank's device.
        device: String,
        /// The node that the rank is running, if it is in a call.
        node: Option<String>,
        /// The ranks that gave up waiting for this one.
        waiting: Vec<usize>,
        /// The deadline of the session's waits.
        deadline: Duration,
    },
    /// A call's positions do not fit the KV cache.
    #[error("{tokens} tokens do not fit the context of {capacity} positions")]
    Context {
        /// Positions in all: those that the cache already holds and those of the call.
        tokens: usize,
        /// Positions that the cache has room for.
        capacity: usize,
    },
    /// An input of the program is missing, or has another shape or dtype than the program says.
    #[error("input {name:?}: {reason}")]
    Input {
        /// The input's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The program has no output of this name.
    #[error("output {name:?} does not exist; there are: {present}")]
    Output {
        /// The name that was asked for.
        name: String,
        /// The names of the program's outputs.
        present: String,
    },
    /// The shards of an output do not make up the whole of it.
    #[error("the shards of the output {name}: {reason}")]
    Shards {
        /// The output's name.
        name: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The plan was made for another number of devices.
    #[error("the plan is for {plan} ranks, {devices} devices are given")]
    WorldSize {
        /// Ranks in the plan.
        plan: usize,
        /// Devices given.
        devices: usize,
    },
    /// The communicators connect another number of ranks than the plan has.
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
    /// A tensor has the wrong dtype or shape.
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
