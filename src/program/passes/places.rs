//! What instructions read and write, which passes ask before they move one.
//!
//! It deliberately changes nothing. Read `join.rs` and `beside.rs` for who moves instructions.

use crate::program::instr::{Instr, Place, RankProgram};

/// The places that the instruction of this number reads, and those that it writes.
pub(super) fn touched(program: &RankProgram, instr: usize) -> (Vec<Place>, Vec<Place>) {
    let places = |values: &[usize]| values.iter().map(|&value| program.values[value].place).collect();
    match &program.instrs[instr] {
        Instr::Compute { inputs, output, .. } => (places(inputs), places(&[*output])),
        Instr::Exchange { from, to, .. } => (places(&[*from]), places(&[*to])),
        Instr::Output { value, .. } => (places(&[*value]), Vec::new()),
        Instr::Zero { output: value } | Instr::Input { value, .. } => (Vec::new(), places(&[*value])),
    }
}

/// Whether the instruction of this number reads what is stored at `place`.
pub(super) fn reads(program: &RankProgram, instr: usize, place: Place) -> bool {
    touched(program, instr).0.contains(&place)
}

/// Whether the instruction of this number writes what is stored at `place`.
pub(super) fn writes(program: &RankProgram, instr: usize, place: Place) -> bool {
    touched(program, instr).1.contains(&place)
}
