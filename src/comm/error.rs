//! The errors of exchanging bytes between ranks.
//!
//! It deliberately knows no device and no program. Read [`super::Communicator`] for the functions that return them.

use std::time::Duration;

/// An exchange between ranks failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// A peer has ended, or there is no rank of that number.
    #[error("rank {rank}: rank {peer} ended")]
    PeerEnded {
        /// The rank whose exchange failed.
        rank: usize,
        /// The peer that ended.
        peer: usize,
    },
    /// A peer sent nothing, or took nothing, before the deadline.
    #[error("rank {rank}: nothing from rank {peer} within {deadline:?}")]
    Deadline {
        /// The rank that waited.
        rank: usize,
        /// The peer that it waited for.
        peer: usize,
        /// How long the rank waited without progress.
        deadline: Duration,
    },
    /// A peer sent a message of another length than the program says.
    #[error("rank {rank}: {found} bytes from rank {peer}, expected {expected}")]
    Length {
        /// The rank that received.
        rank: usize,
        /// The peer that sent.
        peer: usize,
        /// Length of the buffer given, in bytes.
        expected: usize,
        /// Length of the message, in bytes.
        found: usize,
    },
    /// A collective was given more or fewer parts than there are ranks.
    #[error("rank {rank}: {found} parts given to {collective}, expected {expected}")]
    Parts {
        /// The rank that called the collective.
        rank: usize,
        /// The collective's name, as in [`super::Communicator`].
        collective: &'static str,
        /// How many ranks there are.
        expected: usize,
        /// How many parts were given.
        found: usize,
    },
}
