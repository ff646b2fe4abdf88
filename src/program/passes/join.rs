//! A pass that joins elementwise ops to the op that makes what they read.
//!
//! For example, a residual is added by the kernel of the product before it, and keys are rotated and written into their cache by
//! one kernel. It deliberately knows no op by name: ops say what they can do. Read [`crate::kernel::Step`] for how a kernel does it.

use super::places::{reads, writes};
use crate::kernel::Step;
use crate::program::instr::{Fused, Instr, Place, RankProgram};
use crate::tensor::DType;

/// Moves elementwise instructions behind the one whose result they read, and marks them as joined to it.
pub(super) fn join_elementwise(program: &mut RankProgram) {
    let mut first = 0;
    while first < program.instrs.len() {
        let mut last = first;
        let mut steps = Vec::new();
        while let Some((reader, step)) = next(program, first, last, &steps) {
            let mut instr = program.instrs.remove(reader);
            if let Instr::Compute { fused, .. } = &mut instr {
                *fused = Fused::Tail;
            }
            last += 1;
            program.instrs.insert(last, instr);
            steps.push(step);
        }
        first = last + 1;
    }
}

/// The instruction that can be joined to those from `first` to `last`, and its step.
fn next(program: &RankProgram, first: usize, last: usize, steps: &[Step]) -> Option<(usize, Step)> {
    let (Instr::Compute { op: root, .. }, Instr::Compute { output, .. }) =
        (&program.instrs[first], &program.instrs[last])
    else {
        return None;
    };
    let value = &program.values[*output];
    if value.dtype != DType::F32 || !matches!(value.place, Place::Buffer(_)) || steps.contains(&Step::Scatter) {
        return None;
    }
    // Nothing else may read the result, since it is not stored: not even under another shape.
    let mut readers = (0..program.instrs.len()).filter(|&at| reads(program, at, value.place));
    let (reader, None) = (readers.find(|&at| at > last)?, readers.next()) else { return None };
    let Instr::Compute { op, inputs, output: result, .. } = &program.instrs[reader] else { return None };
    let step = op.step().filter(|_| op.is_built_in() && root.is_built_in())?;
    let at = inputs.iter().position(|input| input == output)?;
    let others = || inputs.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, &input)| input);
    let alike = |v: usize| program.values[v].shape == value.shape && program.values[v].dtype == DType::F32;
    let fits = match step {
        // The state is the output. What is written into it has its own shape.
        Step::Scatter => at == 1,
        _ => alike(*result) && others().all(|other| alike(other) && other != *output),
    };
    let taken = match steps.first() {
        None => root.takes_tail(step),
        Some(_) => !(step == Step::Add && steps.iter().any(|step| step.is_product())),
    };
    // Its other operands must be there before the first instruction runs, and what it writes must be free until then.
    let touched: Vec<Place> = others().chain([*result]).map(|v| program.values[v].place).collect();
    let between = last + 1..reader;
    let free = between.clone().all(|at| !touched.iter().any(|&place| writes(program, at, place)));
    let unread = between.into_iter().all(|at| !reads(program, at, program.values[*result].place));
    (fits && taken && free && unread).then_some((reader, step))
}
