//! A pass that drops instructions whose result nothing reads.
//!
//! It deliberately knows neither graph nor plan. Read `mod.rs` for when it runs.

use crate::program::instr::{Instr, Place, RankProgram};
use std::collections::HashSet;

/// Drops instructions whose result no later instruction of the rank reads.
///
/// For example, an output that every rank holds whole is returned by rank 0 alone, so the other ranks need not compute it.
/// Exchanges stay, since a peer waits for them, and so does whatever writes a state.
pub(super) fn drop_dead_values(program: &mut RankProgram) {
    let place = |value: usize| program.values[value].place;
    let mut read: HashSet<Place> = HashSet::new();
    let mut keep = vec![true; program.instrs.len()];
    for (keep, instr) in keep.iter_mut().zip(&program.instrs).rev() {
        let needed = |output: usize| !matches!(place(output), Place::Buffer(_)) || read.contains(&place(output));
        *keep = matches!(instr, Instr::Exchange { .. }) || instr.writes().is_none_or(needed);
        if *keep {
            read.extend(instr.reads().iter().map(|&value| place(value)));
        }
    }
    let mut keep = keep.into_iter();
    program.instrs.retain(|_| keep.next().unwrap_or(true));
}
