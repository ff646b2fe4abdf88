//! Which schedule of an op a device runs: the one that was measured to be the fastest, or the op's own guess.
//!
//! It deliberately measures nothing, and knows no file: whoever opens a device brings what was measured. Read `tune` next for
//! who measures, and [`crate::kernel::Schedules`] for what is chosen from.

use crate::format::Format;
use crate::kernel::{Numerics, Schedules, SizeClass};
use crate::ops::Op;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// A schedule counts as faster than one that the op offers before it if it takes less than this share of its time. Otherwise
/// the noise of a measurement would choose.
const FASTER: f64 = 0.97;

/// How a device picks among the schedules of an op. The bits are the same whichever it picks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Picks {
    /// The op's first guess, from what the adapter says of itself.
    #[default]
    Guess,
    /// The fastest one of those that were measured on this adapter, and the op's guess where nothing was.
    Measured(Arc<Vec<Measured>>),
    /// The one of this number, or the last if there are fewer: for tests of each.
    Number(usize),
}

/// What the choice of a schedule depends on, on one adapter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Case {
    /// The op's name.
    pub op: String,
    /// The names of its inputs' formats.
    pub formats: Vec<String>,
    /// The name of the order in which the device adds up sums.
    pub numerics: String,
    /// The sizes.
    pub class: SizeClass,
}

impl Case {
    pub(super) fn new(op: &Op, formats: &[Format], numerics: Numerics, class: SizeClass) -> Case {
        let formats = formats.iter().map(Format::to_string).collect();
        Case { op: op.name().to_string(), formats, numerics: numerics.name().to_string(), class }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} ({}, {})", self.op, self.class, self.formats.join(" "), self.numerics)
    }
}

/// What was measured of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    #[serde(flatten)]
    pub case: Case,
    /// A hash of the shaders of all its schedules: what was measured of other shaders is not used.
    pub shaders: String,
    /// The schedules in the order in which the op offers them.
    pub schedules: Vec<Timed>,
}

/// The time of one schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// The schedule's name.
    pub name: String,
    /// The median time of an op in nanoseconds.
    pub nanoseconds: u64,
}

impl Measured {
    /// The fastest schedule. Of those that are about as fast it is the one that the op offers first.
    pub fn fastest(&self) -> Option<&Timed> {
        let mut schedules = self.schedules.iter();
        let first = schedules.next()?;
        let faster = |best: &Timed, next: &Timed| (next.nanoseconds as f64) < best.nanoseconds as f64 * FASTER;
        Some(schedules.fold(first, |best, next| if faster(best, next) { next } else { best }))
    }
}

/// A hash of the shaders that `schedules` launch, as they are compiled. Errors when a shader's text cannot be made.
pub(super) fn shaders(schedules: &Schedules) -> Result<String, String> {
    let mut hash = Sha256::new();
    for launch in schedules.offered.iter().flat_map(|schedule| &schedule.launches) {
        hash.update(launch.kernel.source()?);
        hash.update(launch.kernel.entry.as_bytes());
        launch.kernel.constants.iter().for_each(|(name, value)| hash.update(format!("{name}={value};")));
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// The choices that a device has made, by case, so that each is looked up once.
#[derive(Default)]
pub(super) struct Picker(HashMap<Case, usize>);

impl Picker {
    /// The number of the schedule to run, which is less than their count if there are any.
    pub(super) fn pick(&mut self, picks: &Picks, case: impl FnOnce() -> Case, schedules: &Schedules) -> usize {
        let last = schedules.offered.len().saturating_sub(1);
        match picks {
            Picks::Guess => 0,
            Picks::Number(number) => (*number).min(last),
            Picks::Measured(_) if last == 0 => 0,
            Picks::Measured(measured) => {
                let case = case();
                let found = self.0.get(&case).copied();
                let number = found.unwrap_or_else(|| find(measured, &case, schedules).unwrap_or(0));
                self.0.entry(case).or_insert(number);
                number.min(last)
            }
        }
    }
}

/// The number of the schedule that was measured to be the fastest in `case`, if any was, of the present shaders.
fn find(measured: &[Measured], case: &Case, schedules: &Schedules) -> Option<usize> {
    let found = measured.iter().find(|measured| measured.case == *case)?;
    let fastest = found.fastest()?;
    let current = shaders(schedules).is_ok_and(|hash| hash == found.shaders);
    schedules.offered.iter().position(|schedule| schedule.name == fastest.name).filter(|_| current)
}
