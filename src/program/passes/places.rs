//! Where instructions read and write, which passes ask before they move one.
//!
//! It deliberately changes nothing. Read `join.rs` and `beside.rs` for who moves instructions.

use crate::program::instr::{Place, RankProgram};

/// The places that the instruction of this number reads.
pub(super) fn read(program: &RankProgram, instr: usize) -> impl Iterator<Item = Place> {
    program.instrs[instr].reads().iter().map(|&value| program.values[value].place)
}

/// The place that it writes, if any.
pub(super) fn written(program: &RankProgram, instr: usize) -> Option<Place> {
    program.instrs[instr].writes().map(|value| program.values[value].place)
}

/// Whether the instruction of this number reads what is stored at `place`.
pub(super) fn reads(program: &RankProgram, instr: usize, place: Place) -> bool {
    read(program, instr).any(|other| other == place)
}

/// Whether the instruction of this number writes what is stored at `place`.
pub(super) fn writes(program: &RankProgram, instr: usize, place: Place) -> bool {
    written(program, instr) == Some(place)
}
