//! How a session is opened.
//!
//! It deliberately knows no device. Read `threads.rs` for who goes by the options.

use crate::shape::Limits;
use std::time::Duration;

/// How a session is opened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The largest call there will be; memory is taken for it.
    pub limits: Limits,
    /// How long any wait may last without progress of any rank: a rank that loads or computes is no reason to give up.
    pub deadline: Duration,
}

impl Options {
    /// A session for calls up to `limits`, whose waits last at most 30 seconds without progress.
    pub fn new(limits: impl Into<Limits>) -> Options {
        Options { limits: limits.into(), deadline: Duration::from_secs(30) }
    }

    /// The same with waits of at most `deadline` without progress.
    pub fn deadline(self, deadline: Duration) -> Options {
        Options { deadline, ..self }
    }
}
