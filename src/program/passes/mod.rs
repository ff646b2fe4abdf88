//! Passes over one rank's list of instructions, between lowering and the allocation of buffers.
//!
//! A pass changes what a rank does and never what it computes: the bits of every output stay. It deliberately knows neither
//! graph nor plan. Read `program/allocate.rs` for the step after.

mod beside;
mod dead;
mod join;
mod places;

use super::instr::RankProgram;

/// A change of one rank's instructions.
type Pass = fn(&mut RankProgram);

/// All passes, in the order in which they run.
const PASSES: &[Pass] = &[dead::drop_dead_values, join::join_elementwise, beside::put_side_by_side];

/// Runs all passes.
pub(super) fn run(program: &mut RankProgram) {
    for pass in PASSES {
        pass(program);
    }
}
