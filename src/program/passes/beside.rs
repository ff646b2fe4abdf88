//! A pass that puts ops of one kind side by side which do not need each other, so that a device can run them as one dispatch.
//!
//! For example, the products with the weights of queries, keys and values, and the rotations of queries and keys. It deliberately
//! knows no op by name: ops say which inputs they must have in common. Read [`crate::kernel`] for how a kernel runs several.

use super::places::{reads, touched, writes};
use crate::program::instr::{Fused, Instr, RankProgram};

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
    (end..program.instrs.len()).filter(|&number| alike(number)).find(|&number| {
        // It must neither need nor disturb what runs before it now, those that it is to run beside included.
        let moved = number..number + 1 + program.tail(number);
        let before = first..number;
        moved.clone().all(|at| {
            let (read, written) = touched(program, at);
            let free = |other: usize| {
                !read.iter().chain(&written).any(|&place| writes(program, other, place))
                    && !written.iter().any(|&place| reads(program, other, place))
            };
            before.clone().all(free)
        })
    })
}
