//! The options of a GPU device, and the alignment of its buffers.
//!
//! It deliberately knows no adapter. Read `context.rs` for who uses the options.

use super::tuned::Picks;
use crate::kernel::Numerics;
use std::time::Duration;

/// Sizes of buffers and bindings are multiples of this many bytes, the widest vector that a kernel loads.
pub(super) const ALIGNMENT: u64 = 16;

/// Options of a GPU device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuOptions {
    /// How long a wait for the GPU may last without progress.
    pub deadline: Duration,
    /// The most bytes of a weight in one binding; larger weights are split over several. `None` means the adapter's
    /// own limit.
    pub max_binding: Option<u64>,
    /// About how many arithmetic operations one submission holds. The device lowers it when submissions take long.
    pub submission: u64,
    /// How long a wait polls in a loop before it sleeps between polls. A software adapter's wait never polls.
    pub spin: Duration,
    /// The order in which kernels add up sums, unless the program says it. `None` means what suits the adapter: sequential on a
    /// software driver, by lanes on a GPU.
    pub numerics: Option<Numerics>,
    /// Whether fused instructions are computed together, in one kernel or one dispatch; the bits are the same either way. `None` means on GPUs only: on a
    /// software driver a dispatch costs less than compiling each kernel with every tail.
    pub join: Option<bool>,
    /// How it picks among the schedules of an op; the bits are the same whichever it picks.
    pub schedules: Picks,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            deadline: Duration::from_secs(30),
            max_binding: None,
            // A tenth of a second on the slowest device measured, a software driver on one thread.
            submission: 1 << 30,
            // Two devices on an H200 exchanged a sixth faster with this than with 50 µs. It is about a decode step of a small model, so that
            // a step is seldom waited for asleep.
            spin: Duration::from_millis(2),
            numerics: None,
            join: None,
            schedules: Picks::Guess,
        }
    }
}
