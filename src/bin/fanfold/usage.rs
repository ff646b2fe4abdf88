//! The error of a person who called the program in a way that cannot be meant.
//!
//! It deliberately knows no command and no exit code. Read `exit.rs` for what becomes of it.

use std::fmt;

/// A mistake in how the program was called, such as an option that contradicts another one.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A [`Usage`] error that says `reason`.
pub fn usage(reason: impl Into<String>) -> anyhow::Error {
    Usage(reason.into()).into()
}
