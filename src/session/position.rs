//! Where a rank is in its program, and the error that says so when the rank fails.
//!
//! It deliberately knows neither devices nor peers. Read `rank.rs` for who moves through the program.

use super::error::SessionError;
use crate::program::RankProgram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A rank's place in its program. Clones share it: the rank moves it, and whoever waits for the rank reads it.
#[derive(Clone)]
pub(super) struct Position {
    program: Arc<RankProgram>,
    device: String,
    /// The number of the instruction; `usize::MAX` outside a call.
    instr: Arc<AtomicUsize>,
}

impl Position {
    /// The position of a rank that has done nothing yet, on the device called `device`.
    pub(super) fn new(program: Arc<RankProgram>, device: String) -> Position {
        Position { program, device, instr: Arc::new(AtomicUsize::new(usize::MAX)) }
    }

    /// The device's name.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// The rank has come to the instruction of this number; `None`: its call is done.
    pub(super) fn at(&self, instr: Option<usize>) {
        self.instr.store(instr.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The node that the rank is at, if it is in a call.
    pub(super) fn node(&self) -> Option<String> {
        self.program.node(self.instr.load(Ordering::Relaxed)).map(str::to_string)
    }

    /// `cause`, with the rank, its device and the node that it is at.
    pub(super) fn fail(&self, cause: SessionError) -> SessionError {
        let (rank, device, node) = (self.program.rank, self.device.clone(), self.node());
        SessionError::Rank { rank, device, node, cause: Box::new(cause) }
    }

    /// What `work` returns, or an error with the panic's words when it panics: in a device, a communicator or a reader of weights.
    pub(super) fn caught<T>(&self, work: impl FnOnce() -> Result<T, SessionError>) -> Result<T, SessionError> {
        // What `work` owns goes with it, and nothing but this position is used afterwards.
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let words = words.unwrap_or("without a word").to_string();
            Err(self.fail(SessionError::Panicked { words }))
        })
    }
}
