//! A pass that puts ops of one kind side by side which do not need each other, so that a device can run them as one dispatch.
//!
//! For example, the products with the weights of queries, keys and values, and the rotations of queries and keys. It deliberately
//! knows no op by name: ops say which inputs they must have in common. Read [`crate::kernel`] for how a kernel runs several.

use super::places::{read, written};
use crate::program::instr::{Fused, Instr, Place, RankProgram};
use std::collections::HashSet;

/// The most ops that are put side by side: each binds buffers of its own, of which a device has a limited number.
const MOST: usize = 4;

/// Moves instructions behind one of their kind that they can run beside, and marks them. What was joined to an instruction moves
/// with it.
pub(super) fn put_side_by_side(program: &mut RankProgram) {
    let mut first = 0;
    while first < program.instrs.len() {
        let mut end = first + 1 + program.tail(first);
        let mut sides = 1;
        while sides < MOST
            && let Some(other) = next(program, first, end)
        {
            let count = 1 + program.tail(other);
            program.instrs[end..other + count].rotate_right(count);
            if let Instr::Compute { fused, .. } = &mut program.instrs[end] {
                *fused = Fused::Beside;
            }
            end += count;
            sides += 1;
        }
        first = end;
    }
}

/// The first instruction from number `end` on that can run beside those from `first` on, which end before `end`.
fn next(program: &RankProgram, first: usize, end: usize) -> Option<usize> {
    let Instr::Compute { op, inputs, .. } = &program.instrs[first] else { return None };
    let shared = op.beside().filter(|_| op.is_built_in())?;
    let alike = |number: usize| match &program.instrs[number] {
        Instr::Compute { op: other, inputs: others, fused: Fused::Alone, .. } => {
            other.is_built_in()
                && other.family() == op.family()
                && others.len() == inputs.len()
                && shared.iter().all(|&input| others[input] == inputs[input])
        }
        _ => false,
    };
    // Where instructions from the first on, up to the one that is looked at, read and write.
    let mut reading: HashSet<Place> = (first..end).flat_map(|at| read(program, at)).collect();
    let mut writing: HashSet<Place> = (first..end).filter_map(|at| written(program, at)).collect();
    for number in end..program.instrs.len() {
        // It must neither need nor disturb what runs before it now, those that it is to run beside included.
        let free = |at: usize| {
            read(program, at).chain(written(program, at)).all(|place| !writing.contains(&place))
                && written(program, at).is_none_or(|place| !reading.contains(&place))
        };
        if alike(number) && (number..=number + program.tail(number)).all(free) {
            return Some(number);
        }
        reading.extend(read(program, number));
        writing.extend(written(program, number));
    }
    None
}
