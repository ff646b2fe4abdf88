//! Allocation: scratch values whose lives do not meet come to share a buffer.
//!
//! It reads a rank's finished list of instructions and deliberately knows neither graph nor plan. Read `passes/` for
//! what happens to the list before.

use super::instr::{Fused, Instr, Place, RankProgram};
use super::size::Size;

/// Lets scratch values whose lives do not meet share a buffer, where their sizes grow with the same symbols.
///
/// Before, every scratch value has a buffer of its own.
pub(super) fn share_buffers(program: &mut RankProgram) {
    let place = |v: usize| match program.values[v].place {
        Place::Buffer(b) => Some(b),
        Place::Weight(_) | Place::State(_) => None,
    };
    let mut last: Vec<usize> = vec![0; program.buffers.len()];
    let mut touched: Vec<Vec<usize>> = Vec::new();
    for instr in &program.instrs {
        let buffers: Vec<usize> = instr.reads().iter().copied().chain(instr.writes()).filter_map(place).collect();
        // Fused instructions run as one, so that all they touch must be there at once.
        match (instr, touched.last_mut()) {
            (Instr::Compute { fused: Fused::Tail | Fused::Beside, .. }, Some(run)) => run.extend(buffers),
            _ => touched.push(buffers),
        }
        for &b in touched.last().into_iter().flatten() {
            last[b] = touched.len() - 1;
        }
    }
    let mut shared: Vec<Size> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut new_place: Vec<Option<usize>> = vec![None; program.buffers.len()];
    for (at, buffers) in touched.iter().enumerate() {
        for &b in buffers {
            if new_place[b].is_some() {
                continue;
            }
            let size = &program.buffers[b];
            // The closest fit keeps large buffers for large tenants.
            let fit = |&s: &usize| (shared[s].symbols == size.symbols).then(|| shared[s].count.abs_diff(size.count));
            let best = free.iter().copied().filter(|s| fit(s).is_some()).min_by_key(|s| fit(s));
            let slot = best.unwrap_or_else(|| {
                shared.push(size.clone());
                shared.len() - 1
            });
            free.retain(|&s| s != slot);
            shared[slot].count = shared[slot].count.max(size.count);
            new_place[b] = Some(slot);
        }
        // A buffer is free only after its last instruction: an op never overwrites what it reads.
        let mut ending: Vec<usize> = buffers.iter().copied().filter(|&b| last[b] == at).collect();
        ending.sort_unstable();
        ending.dedup();
        free.extend(ending.into_iter().filter_map(|b| new_place[b]));
    }
    for value in &mut program.values {
        if let Place::Buffer(b) = value.place {
            value.place = Place::Buffer(new_place[b].unwrap_or(0));
        }
    }
    program.buffers = shared;
}
