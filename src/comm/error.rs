//! What can go wrong when ranks exchange bytes.
//!
//! It deliberately knows no device. Read [`super::Communicator`] for who returns these.

use std::time::Duration;

/// An exchange between ranks.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// A peer ended.
    #[error("rank {rank}: rank {peer} ended")]
    PeerEnded {
        /// Who waited.
        rank: usize,
        /// For whom.
        peer: usize,
    },
    /// A peer sent nothing in time.
    #[error("rank {rank}: nothing from rank {peer} within {deadline:?}")]
    Deadline {
        /// Who waited.
        rank: usize,
        /// For whom.
        peer: usize,
        /// The deadline.
        deadline: Duration,
    },
    /// A peer sent a message of another length than the program says.
    #[error("rank {rank}: {found} bytes from rank {peer}, expected {expected}")]
    Length {
        /// Who received.
        rank: usize,
        /// From whom.
        peer: usize,
        /// Bytes expected.
        expected: usize,
        /// Bytes received.
        found: usize,
    },
    /// The parts given are not one per rank.
    #[error("rank {rank}: {found} parts given to {collective}, expected {expected}")]
    Parts {
        /// Who called.
        rank: usize,
        /// Which collective.
        collective: &'static str,
        /// One per rank.
        expected: usize,
        /// Given.
        found: usize,
    },
}
