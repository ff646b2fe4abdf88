//! Passes over one rank's list of instructions, between lowering and the allocation of buffers.
//!
//! A pass changes what a rank does and never what it computes: the bits of every output stay. It deliberately knows neither
//! graph nor plan. Read `allocate.rs` for the step after.

use super::instr::{Instr, Place, RankProgram};
use std::collections::HashSet;

/// A change of one rank's instructions.
type Pass = fn(&mut RankProgram);

/// All passes, in the order in which they run.
const PASSES: &[Pass] = &[drop_dead_values];

/// Runs all passes.
pub(super) fn run(program: &mut RankProgram) {
    for pass in PASSES {
        pass(program);
    }
}

/// Drops instructions whose result no later instruction of the rank reads.
///
/// For example, an output that every rank holds whole is returned by rank 0 alone, so the other ranks need not compute it.
/// Exchanges stay, since a peer waits for them, and so does whatever writes a state.
fn drop_dead_values(program: &mut RankProgram) {
    let place = |value: usize| program.values[value].place;
    let mut read: HashSet<Place> = HashSet::new();
    let mut keep = vec![true; program.instrs.len()];
    for (keep, instr) in keep.iter_mut().zip(&program.instrs).rev() {
        let needed = |output: usize| !matches!(place(output), Place::Buffer(_)) || read.contains(&place(output));
        *keep = match instr {
            Instr::Input { value, .. } => needed(*value),
            Instr::Zero { output } | Instr::Compute { output, .. } => needed(*output),
            Instr::Exchange { .. } | Instr::Output { .. } => true,
        };
        if *keep {
            match instr {
                Instr::Compute { inputs, .. } => read.extend(inputs.iter().map(|&input| place(input))),
                Instr::Exchange { from, .. } => drop(read.insert(place(*from))),
                Instr::Output { value, .. } => drop(read.insert(place(*value))),
                Instr::Input { .. } | Instr::Zero { .. } => {}
            }
        }
    }
    let mut keep = keep.into_iter();
    program.instrs.retain(|_| keep.next().unwrap_or(true));
}
