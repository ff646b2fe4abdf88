//! How a GPU is used, and the alignment that all of its buffers share.
//!
//! It deliberately knows no adapter. Read `context.rs` for who uses the options.

use std::time::Duration;

/// Sizes of buffers and bindings are multiples of this: the widest vector a kernel loads.
pub(super) const ALIGNMENT: u64 = 16;

/// How a GPU is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuOptions {
    /// No wait lasts once there was no progress for so long.
    pub deadline: Duration,
    /// Splits weights over bindings of at most so many bytes; `None`: the adapter's own limit.
    pub max_binding: Option<u64>,
    /// Arithmetic operations, about, after which a submission ends. It is lowered where submissions take long.
    pub submission: u64,
    /// How long a wait stays awake before it sleeps.
    pub spin: Duration,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            deadline: Duration::from_secs(30),
            max_binding: None,
            // A tenth of a second for the slowest device measured, a software one on one thread.
            submission: 1 << 30,
            spin: Duration::from_micros(50),
        }
    }
}
