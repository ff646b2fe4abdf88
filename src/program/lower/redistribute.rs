//! Redistribution: from the placement that a value is held in to the placement that a node needs.
//!
//! Each change of placement is one collective, or none where every rank already holds what it needs. No op is named but the
//! one that redistribution needs, Slice. Read [`crate::sharding::Redistribute`] for the table of changes.

use super::draft::Draft;
use super::{Locals, Lowering};
use crate::graph::ValueId;
use crate::kernel::Layout;
use crate::ops::{Op, Slice};
use crate::program::error::ProgramError;
use crate::program::instr::{Fused, Instr};
use crate::shape::{Dim, Shape};
use crate::sharding::{Placement, Redistribute};
use crate::tensor::{DType, SymbolicRegion};
use std::ops::Range;

/// `range` relative to the start of `base`.
fn relative(range: &Range<usize>, base: &Range<usize>) -> Range<usize> {
    range.start - base.start..range.end - base.start
}

fn intersect(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

impl Lowering<'_> {
    /// The value `id`, held as `locals` in the placement `from`, in the placement `to`.
    pub(super) fn redistribute(
        &mut self,
        id: ValueId,
        from: &Placement,
        locals: &Locals,
        to: &Placement,
    ) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        let (name, shape) = (value.name.clone(), value.shape.clone());
        let Some(kind) = Redistribute::between(from, to) else { return Ok(locals.clone()) };
        match (kind, from, to) {
            (Redistribute::AllSlice, _, Placement::Shard { dim, cut }) => {
                let slice = |r: usize| {
                    let range = cut.range(r);
                    Op::from(Slice { axis: *dim, start: Some(range.start), len: Dim::Fixed(range.len()) })
                };
                self.local((&name, value.dtype), locals, |_| shape.clone(), slice)
            }
            (Redistribute::Zero, ..) => {
                let zero = |(r, rank): (usize, &mut Draft)| {
                    if r == 0 {
                        return locals[0];
                    }
                    let output = rank.scratch(&name, value.dtype, shape.clone());
                    rank.program.instrs.push(Instr::Zero { output });
                    output
                };
                Ok(self.ranks.iter_mut().enumerate().map(zero).collect())
            }
            (Redistribute::AllGather, Placement::Shard { .. }, Placement::Partial) => {
                let whole = self.obtain(id, &Placement::Replicate, Layout::Dense)?;
                self.redistribute(id, &Placement::Replicate, &whole, to)
            }
            (Redistribute::AllGather, Placement::Shard { dim, cut }, _) => {
                let mine = |r: usize, _| SymbolicRegion(vec![(*dim, relative(&cut.owned(r), &cut.range(r)))]);
                let theirs = |_, q: usize| SymbolicRegion(vec![(*dim, cut.owned(q))]);
                Ok(self.exchange((&name, value.dtype), kind, locals, |_| shape.clone(), mine, theirs))
            }
            (Redistribute::AllToAll, Placement::Shard { dim: i, cut: a }, Placement::Shard { dim: j, cut: b }) => {
                let target = |r: usize| to.local_shape(&shape, r);
                let send = |r: usize, q: usize| {
                    let owned = a.owned(r);
                    if i == j {
                        let both = intersect(&owned, &b.range(q));
                        if both.is_empty() {
                            return SymbolicRegion(vec![(*i, 0..0)]);
                        }
                        SymbolicRegion(vec![(*i, relative(&both, &a.range(r)))])
                    } else {
                        SymbolicRegion(vec![(*i, relative(&owned, &a.range(r))), (*j, b.range(q))])
                    }
                };
                let receive = |r: usize, q: usize| {
                    let owned = a.owned(q);
                    if i == j {
                        let both = intersect(&owned, &b.range(r));
                        if both.is_empty() {
                            return SymbolicRegion(vec![(*i, 0..0)]);
                        }
                        SymbolicRegion(vec![(*i, relative(&both, &b.range(r)))])
                    } else {
                        SymbolicRegion(vec![(*i, owned), (*j, 0..b.range(r).len())])
                    }
                };
                Ok(self.exchange((&name, value.dtype), kind, locals, target, send, receive))
            }
            (_, _, to) => {
                // Partial: each rank sends every other one its addends of the part that this keeps. The communicator adds them
                // in rank order.
                let send = |_, q: usize| match to {
                    Placement::Shard { dim, cut } => SymbolicRegion(vec![(*dim, cut.range(q))]),
                    _ => SymbolicRegion::default(),
                };
                // What arrives from each rank is all of the part, unless that is empty.
                let receive = |r: usize, _| match to {
                    Placement::Shard { dim, cut } => SymbolicRegion(vec![(*dim, 0..cut.range(r).len())]),
                    _ => SymbolicRegion::default(),
                };
                let kept = |r: usize| to.local_shape(&shape, r);
                Ok(self.exchange((&name, value.dtype), kind, locals, kept, send, receive))
            }
        }
    }

    /// Adds an op that every rank evaluates on its own part, without an exchange.
    pub(super) fn local(
        &mut self,
        (name, dtype): (&str, DType),
        locals: &Locals,
        shape: impl Fn(usize) -> Shape,
        op: impl Fn(usize) -> Op,
    ) -> Result<Locals, ProgramError> {
        let mut outputs = Vec::new();
        for (r, rank) in self.ranks.iter_mut().enumerate() {
            let op = op(r);
            let rule = op.rule(&[shape(r)])?;
            let output = rank.scratch(name, dtype, rule.output_shape());
            rank.program.instrs.push(Instr::Compute {
                node: name.to_string(),
                op,
                inputs: vec![locals[r]],
                output,
                extents: rule.extents(None, r),
                fused: Fused::Alone,
            });
            outputs.push(output);
        }
        Ok(outputs)
    }

    /// Adds an exchange into new values. `send(r, q)` is the region of its value that rank `r` sends to `q`;
    /// `receive(r, q)` is the region of its new value that `r` fills with the message from `q`.
    fn exchange(
        &mut self,
        (name, dtype): (&str, DType),
        kind: Redistribute,
        from: &Locals,
        shape: impl Fn(usize) -> Shape,
        send: impl Fn(usize, usize) -> SymbolicRegion,
        receive: impl Fn(usize, usize) -> SymbolicRegion,
    ) -> Locals {
        let world = self.world;
        let some = |region: SymbolicRegion| (!region.is_empty()).then_some(region);
        let mut outputs = Vec::new();
        for (r, rank) in self.ranks.iter_mut().enumerate() {
            let to = rank.scratch(name, dtype, shape(r));
            rank.program.instrs.push(Instr::Exchange {
                node: name.to_string(),
                kind,
                from: from[r],
                to,
                send: (0..world).map(|q| some(send(r, q))).collect(),
                receive: (0..world).map(|q| some(receive(r, q))).collect(),
            });
            outputs.push(to);
        }
        outputs
    }
}
