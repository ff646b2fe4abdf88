//! The options of a session: how large a call may be and how long a wait may last.
//!
//! It deliberately knows no device. Read `threads.rs` for who uses them.

use crate::shape::Limits;
use std::time::Duration;

/// The options of a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The largest call that the session accepts. Devices allocate activations and KV caches for it when the session
    /// is opened.
    pub limits: Limits,
    /// How long any wait may last while no rank makes progress. The time that a rank takes to load or to compute does
    /// not count.
    pub deadline: Duration,
}

impl Options {
    /// Options for calls up to `limits`, with a deadline of 30 seconds.
    pub fn new(limits: impl Into<Limits>) -> Options {
        Options { limits: limits.into(), deadline: Duration::from_secs(30) }
    }

    /// The same options with another deadline.
    pub fn deadline(self, deadline: Duration) -> Options {
        Options { deadline, ..self }
    }
}
