//! The instruction that a rank is running, shared with the thread that waits for it, so that errors can name the
//! node.
//!
//! It deliberately knows neither devices nor peers. Read `rank.rs` for who moves through the program.

use super::error::SessionError;
use crate::program::RankProgram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The instruction that a rank is running. Clones share it: the rank writes it, and the session that waits for the
/// rank reads it.
#[derive(Clone)]
pub(super) struct Position {
    program: Arc<RankProgram>,
    device: String,
    /// The index of the instruction; `usize::MAX` between calls.
    instr: Arc<AtomicUsize>,
}

impl Position {
    /// The position of a rank before its first call, on the device called `device`.
    pub(super) fn new(program: Arc<RankProgram>, device: String) -> Position {
        Position { program, device, instr: Arc::new(AtomicUsize::new(usize::MAX)) }
    }

    /// The name of the rank's device.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// Records that the rank begins the instruction of this index, or with `None` that its call is done.
    pub(super) fn at(&self, instr: Option<usize>) {
        self.instr.store(instr.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The node that the rank is running, if it is in a call.
    pub(super) fn node(&self) -> Option<String> {
        self.program.node(self.instr.load(Ordering::Relaxed)).map(str::to_string)
    }

    /// The error of a rank that failed with `cause`: it names the rank, its device and the node.
    pub(super) fn fail(&self, cause: SessionError) -> SessionError {
        let (rank, device, node) = (self.program.rank, self.device.clone(), self.node());
        SessionError::Rank { rank, device, node, cause: Box::new(cause) }
    }

    /// Runs `work`, and turns a panic inside it into an error with the panic's message. A device driver, a
    /// communicator or a weight source of somebody else may panic, and must not take the process down.
    pub(super) fn caught<T>(&self, work: impl FnOnce() -> Result<T, SessionError>) -> Result<T, SessionError> {
        // Unwind safety: after a panic the rank is dropped, and only this position, which is one atomic, is read
        // again.
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let words = words.unwrap_or("without a word").to_string();
            Err(self.fail(SessionError::Panicked { words }))
        })
    }
}
