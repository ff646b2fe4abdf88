//! Schedules: the ways to launch an op's part that all give the same bits, so that a device may pick the fastest.
//!
//! It deliberately knows no op and measures nothing. Read `ops/linear.rs` for an op that has several, and
//! [`crate::device::gpu`] for who measures them.

use super::Launch;
use serde::{Deserialize, Serialize};

/// One way to launch an op's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its name among the schedules of the op: `gemm_tiles_64` for example.
    pub name: String,
    /// The dispatches, in order.
    pub launches: Vec<Launch>,
}

/// The schedules that an op offers for one part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedules {
    /// What the fastest of them depends on, beside the op and its types.
    pub class: SizeClass,
    /// The schedules, the best guess first. There is at least one.
    pub offered: Vec<Schedule>,
}

impl Schedules {
    /// A single schedule, for an op that leaves no choice.
    pub fn only(launches: Vec<Launch>) -> Schedules {
        let name = "only".to_string();
        Schedules { class: SizeClass::default(), offered: vec![Schedule { name, launches }] }
    }
}

/// Sizes of an op's part that share their fastest schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SizeClass {
    /// The length of the sums.
    pub reduced: usize,
    /// Rows of the rank's part of the result, rounded up to a power of two.
    pub rows: usize,
    /// Columns of the rank's part of the result, rounded up to a power of two.
    pub width: usize,
}

impl SizeClass {
    /// The class of a result of `rows` by `width` elements, each a sum of `reduced` terms.
    pub fn new(reduced: usize, rows: usize, width: usize) -> SizeClass {
        // A tensor's sizes are far below the largest power of two.
        let up = |n: usize| n.checked_next_power_of_two().unwrap_or(n);
        SizeClass { reduced, rows: up(rows), width: up(width) }
    }
}

impl std::fmt::Display for SizeClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {} x {}", self.rows, self.reduced, self.width)
    }
}
