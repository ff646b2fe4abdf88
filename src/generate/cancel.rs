//! Cancelling: a flag that another thread sets, and that a generation looks at between its steps.
//!
//! It deliberately knows no engine. Read `tokens.rs` for when it is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks a generation to stop. Clones ask together.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks. The generation ends before its next step, with [`FinishReason::Cancelled`](crate::text::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A flag that somebody else keeps, such as the one that Ctrl-C sets.
impl From<Arc<AtomicBool>> for Cancel {
    fn from(flag: Arc<AtomicBool>) -> Cancel {
        Cancel(flag)
    }
}
