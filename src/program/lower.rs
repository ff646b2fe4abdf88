//! Lowering: from a graph and a plan to one list of instructions per rank.
//!
//! Written once, over rules: each node's cut says which placements it needs, and what is held otherwise is
//! redistributed. No op is named but the two that redistribution itself is made of, Slice and ReduceSum. Read
//! [`crate::sharding`] first.

use super::{Instr, LocalValue, Place, Port, Program, RankProgram, Size, WeightPart, WeightShard};
use crate::program::ProgramError;

use crate::graph::{Graph, Source, ValueId};
use crate::kernel::{Layout, dense};
use crate::ops::{Op, Reduce, ReduceKind, Slice};
use crate::plan::Plan;
use crate::shape::{Dim, Shape};
use crate::sharding::{Cut, Placement, Redistribute};
use crate::tensor::DType;
use crate::tensor::SymbolicRegion;
use std::collections::HashMap;
use std::ops::Range;

/// Lowers `graph` under `plan`. Errors when the plan is for another graph or cuts what may not be cut.
pub fn lower(graph: &Graph, plan: &Plan) -> Result<Program, ProgramError> {
    let cuts = plan.resolve(graph)?;
    let mut lowering = Lowering {
        graph,
        world: plan.world_size,
        held: HashMap::new(),
        weights: HashMap::new(),
        states: HashMap::new(),
        ranks: (0..plan.world_size).map(Rank::new).collect(),
    };
    for (id, value) in graph.values().filter(|(_, v)| v.source == Source::Input) {
        let locals = lowering.values(&value.name, value.dtype, |_| value.shape.clone());
        for (rank, &local) in lowering.ranks.iter_mut().zip(&locals) {
            rank.program.instrs.push(Instr::Input { name: value.name.clone(), value: local });
        }
        lowering.held.insert(id, vec![(Placement::Replicate, locals)]);
    }
    for ((n, node), cut) in graph.nodes().iter().enumerate().zip(&cuts) {
        let decision = node.rule.decision(plan.world_size);
        let cut = cut.or(decision.as_ref().map(|(factor, cut)| (*factor, cut)));
        lowering
            .node(n, cut)
            .map_err(|cause| ProgramError::Node { node: node.name.clone(), cause: Box::new(cause) })?;
    }
    let mut outputs = Vec::new();
    for (name, value) in graph.outputs() {
        lowering.output(name, *value)?;
        let value = graph.value(*value);
        // A weight is returned as a device holds it for any op: widened.
        outputs.push(Port { name: name.clone(), shape: value.shape.clone(), dtype: dense(value.dtype) });
    }
    let inputs = graph.values().filter(|(_, v)| v.source == Source::Input);
    let inputs = inputs.map(|(_, v)| Port { name: v.name.clone(), shape: v.shape.clone(), dtype: v.dtype });
    let inputs = inputs.collect();
    Ok(Program { inputs, outputs, ranks: lowering.ranks.into_iter().map(Rank::finish).collect() })
}

/// One local value per rank.
type Locals = Vec<usize>;

struct Lowering<'a> {
    graph: &'a Graph,
    world: usize,
    /// In which placements each value is held so far, the one it was made in first.
    held: HashMap<ValueId, Vec<(Placement, Locals)>>,
    /// The same of weights, which may lie in two layouts at once.
    weights: HashMap<(ValueId, Layout), Vec<(Placement, Locals)>>,
    /// How each state is cut: by the first node that uses it.
    states: HashMap<ValueId, Placement>,
    ranks: Vec<Rank>,
}

/// The part of `range` counted from where `base` starts.
fn relative(range: &Range<usize>, base: &Range<usize>) -> Range<usize> {
    range.start - base.start..range.end - base.start
}

fn intersect(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

impl Lowering<'_> {
    /// A new scratch value on every rank.
    fn values(&mut self, name: &str, dtype: DType, shape: impl Fn(usize) -> Shape) -> Locals {
        self.ranks.iter_mut().enumerate().map(|(r, rank)| rank.scratch(name, dtype, shape(r))).collect()
    }

    fn node(&mut self, n: usize, cut: Option<(usize, &Cut)>) -> Result<(), ProgramError> {
        let node = &self.graph.nodes()[n];
        let (needed, made) = match cut {
            Some((factor, cut)) => node.rule.placements(factor, cut),
            None => self.uncut(n),
        };
        let mut inputs: Vec<Locals> = Vec::new();
        for (i, (&value, placement)) in node.inputs.iter().zip(&needed).enumerate() {
            let mut locals = self.obtain(value, placement, node.op.operand(i).layout())?;
            if node.op.in_place() == Some(i) && self.graph.state_of(value).is_none() {
                locals = self.copy(value, placement, &locals)?;
            }
            inputs.push(locals);
        }
        let dtype = self.graph.value(node.output).dtype;
        let alias = node.op.in_place().or(node.op.is_view().then_some(0)).map(|i| inputs[i].clone());
        let outputs: Locals = (0..self.world)
            .map(|r| {
                let extents = node.rule.extents(cut, r);
                let shape = node.rule.local_output(&extents);
                let rank = &mut self.ranks[r];
                let output = match &alias {
                    Some(locals) => rank.alias(&node.name, shape, locals[r]),
                    None => rank.scratch(&node.name, dtype, shape),
                };
                rank.program.instrs.push(Instr::Compute {
                    node: node.name.clone(),
                    op: node.op.clone(),
                    inputs: inputs.iter().map(|locals| locals[r]).collect(),
                    output,
                    extents,
                });
                output
            })
            .collect();
        self.held.insert(node.output, vec![(made, outputs)]);
        Ok(())
    }

    /// What a node that runs whole needs and makes: Partial passes where the op is linear, all else is Replicate.
    fn uncut(&self, n: usize) -> (Vec<Placement>, Placement) {
        let node = &self.graph.nodes()[n];
        let partial =
            |v: &ValueId| self.held.get(v).is_some_and(|held| held.iter().all(|(p, _)| *p == Placement::Partial));
        let passing: Vec<usize> = (0..node.inputs.len()).filter(|&i| partial(&node.inputs[i])).collect();
        if passing.is_empty() || !node.rule.passes_partial(&passing) {
            return (vec![Placement::Replicate; node.inputs.len()], Placement::Replicate);
        }
        let need = |i| if passing.contains(&i) { Placement::Partial } else { Placement::Replicate };
        ((0..node.inputs.len()).map(need).collect(), Placement::Partial)
    }

    /// A copy of a value that is held in `placement` as `locals`, to be written into.
    fn copy(&mut self, id: ValueId, placement: &Placement, locals: &Locals) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        let shape = |r: usize| placement.local_shape(&value.shape, r);
        let whole = |r: usize| {
            let len = shape(r).first().copied().unwrap_or(Dim::Fixed(1));
            Op::from(Slice { axis: 0, start: Some(0), len })
        };
        self.local((&value.name, dense(value.dtype)), locals, shape, whole)
    }

    /// The value in `placement`, redistributed if it is not held so; a weight in `layout`.
    fn obtain(&mut self, id: ValueId, placement: &Placement, layout: Layout) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        if value.source == Source::Weight {
            let held = self.weights.get(&(id, layout)).and_then(|held| held.iter().find(|(p, _)| p == placement));
            if let Some((_, locals)) = held {
                return Ok(locals.clone());
            }
            let locals = self.weight(id, placement, layout);
            self.weights.entry((id, layout)).or_default().push((placement.clone(), locals.clone()));
            return Ok(locals);
        }
        let held = self.held.entry(id).or_default();
        if let Some((_, locals)) = held.iter().find(|(p, _)| p == placement) {
            return Ok(locals.clone());
        }
        if let Some(state) = self.graph.state_of(id) {
            let locals = self.state(id, state, placement)?;
            self.held.insert(id, vec![(placement.clone(), locals.clone())]);
            return Ok(locals);
        }
        // What every rank holds whole can be redistributed without an exchange.
        let whole = held.iter().find(|(p, _)| *p == Placement::Replicate).or(held.first()).cloned();
        let (from, locals) = whole.ok_or_else(|| missing(&value.name))?;
        let locals = self.redistribute(id, &from, &locals, placement)?;
        self.held.entry(id).or_default().push((placement.clone(), locals.clone()));
        Ok(locals)
    }

    fn weight(&mut self, id: ValueId, placement: &Placement, layout: Layout) -> Locals {
        let value = self.graph.value(id);
        let dtype = match layout {
            Layout::Padded => value.dtype,
            Layout::Dense => dense(value.dtype),
        };
        let place = |(r, rank): (usize, &mut Rank)| {
            let part = match placement {
                Placement::Shard { dim, cut } => WeightPart::Region(SymbolicRegion(vec![(*dim, cut.range(r))])),
                Placement::Partial if r > 0 => WeightPart::Zero,
                Placement::Partial | Placement::Replicate => WeightPart::Region(SymbolicRegion::default()),
            };
            let (name, shape) = (value.name.clone(), value.shape.clone());
            rank.program.weights.push(WeightShard { name, shape, dtype: value.dtype, layout, part });
            let place = Place::Weight(rank.program.weights.len() - 1);
            rank.value(&value.name, dtype, placement.local_shape(&value.shape, r), place)
        };
        self.ranks.iter_mut().enumerate().map(place).collect()
    }

    fn state(&mut self, id: ValueId, state: ValueId, placement: &Placement) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        if *self.states.entry(state).or_insert_with(|| placement.clone()) != *placement || id != state {
            let (node, state) = (value.name.clone(), self.graph.value(state).name.clone());
            return Err(ProgramError::State { node, state });
        }
        let place = |(r, rank): (usize, &mut Rank)| {
            let shape = placement.local_shape(&value.shape, r);
            rank.program.states.push(shape.clone());
            let place = Place::State(rank.program.states.len() - 1);
            rank.value(&value.name, value.dtype, shape, place)
        };
        Ok(self.ranks.iter_mut().enumerate().map(place).collect())
    }

    fn redistribute(
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
                let zero = |(r, rank): (usize, &mut Rank)| {
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
                // Partial: gather the addends that this rank keeps side by side, then fold them in rank order.
                let kept = |r: usize| to.local_shape(&shape, r);
                let parts = |r: usize| [vec![Dim::Fixed(self.world)], kept(r)].concat();
                let shapes: Vec<Shape> = (0..self.world).map(parts).collect();
                let send = |_, q: usize| match to {
                    Placement::Shard { dim, cut } => SymbolicRegion(vec![(*dim, cut.range(q))]),
                    _ => SymbolicRegion::default(),
                };
                let receive = |r: usize, q: usize| {
                    let empty = matches!(to, Placement::Shard { cut, .. } if cut.range(r).is_empty());
                    SymbolicRegion(vec![(0, if empty { q..q } else { q..q + 1 })])
                };
                let gathered = self.exchange((&name, value.dtype), kind, locals, |r| shapes[r].clone(), send, receive);
                let fold = |_| Op::from(Reduce { kind: ReduceKind::Sum, axis: 0 });
                self.local((&name, value.dtype), &gathered, |r| shapes[r].clone(), fold)
            }
        }
    }

    /// Evaluates a local op on every rank's own part.
    fn local(
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
            });
            outputs.push(output);
        }
        Ok(outputs)
    }

    /// An exchange into new values: `send(r, q)` is the box of its part that rank `r` gives to `q`, `receive(r, q)` the
    /// box of its new part that `r` fills with what it gets from `q`.
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
        let some = |window: SymbolicRegion| (!window.is_empty()).then_some(window);
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

    fn output(&mut self, name: &str, id: ValueId) -> Result<(), ProgramError> {
        let held = self.held.get(&id).cloned().unwrap_or_default();
        // Shards are stacked where they are read, so an output needs no exchange of its own.
        let disjoint = |cut: &Cut| (0..cut.world_size()).all(|r| cut.owned(r) == cut.range(r));
        let stacked = match held.first() {
            Some((Placement::Shard { dim, cut }, locals)) if held.len() == 1 && disjoint(cut) => {
                Some((*dim, cut.clone(), locals.clone()))
            }
            _ => None,
        };
        if let Some((dim, cut, locals)) = stacked {
            for (r, rank) in self.ranks.iter_mut().enumerate().filter(|(r, _)| !cut.range(*r).is_empty()) {
                let window = SymbolicRegion(vec![(dim, cut.range(r))]);
                rank.program.instrs.push(Instr::Output { name: name.to_string(), value: locals[r], window });
            }
        } else {
            let value = self.obtain(id, &Placement::Replicate, Layout::Dense)?[0];
            let output = Instr::Output { name: name.to_string(), value, window: SymbolicRegion::default() };
            self.ranks[0].program.instrs.push(output);
        }
        Ok(())
    }
}

fn missing(name: &str) -> ProgramError {
    ProgramError::Unmade { value: name.to_string() }
}

/// One rank's program in the making: every scratch value has a buffer of its own until [`Rank::finish`].
struct Rank {
    program: RankProgram,
}

impl Rank {
    fn new(rank: usize) -> Rank {
        let (values, buffers, weights, states, instrs) = Default::default();
        Rank { program: RankProgram { rank, values, buffers, weights, states, instrs } }
    }

    fn value(&mut self, name: &str, dtype: DType, shape: Shape, place: Place) -> usize {
        self.program.values.push(LocalValue { name: name.to_string(), shape, dtype, place });
        self.program.values.len() - 1
    }

    fn scratch(&mut self, name: &str, dtype: DType, shape: Shape) -> usize {
        self.program.buffers.push(Size::of(&shape));
        let place = Place::Buffer(self.program.buffers.len() - 1);
        self.value(name, dtype, shape, place)
    }

    fn alias(&mut self, name: &str, shape: Shape, of: usize) -> usize {
        let LocalValue { dtype, place, .. } = self.program.values[of];
        self.value(name, dtype, shape, place)
    }

    /// Lets scratch values whose lives do not meet share a buffer, if their sizes grow with the same symbols.
    fn finish(self) -> RankProgram {
        let mut program = self.program;
        let place = |v: usize| match program.values[v].place {
            Place::Buffer(b) => Some(b),
            Place::Weight(_) | Place::State(_) => None,
        };
        let mut last: Vec<usize> = vec![0; program.buffers.len()];
        let mut touched: Vec<Vec<usize>> = Vec::new();
        for (at, instr) in program.instrs.iter().enumerate() {
            let values = match instr {
                Instr::Input { value, .. } | Instr::Output { value, .. } => vec![*value],
                Instr::Zero { output } => vec![*output],
                Instr::Compute { inputs, output, .. } => [inputs.as_slice(), &[*output]].concat(),
                Instr::Exchange { from, to, .. } => vec![*from, *to],
            };
            let buffers: Vec<usize> = values.into_iter().filter_map(place).collect();
            for &b in &buffers {
                last[b] = at;
            }
            touched.push(buffers);
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
                let fit =
                    |&s: &usize| (shared[s].symbols == size.symbols).then(|| shared[s].count.abs_diff(size.count));
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
        program
    }
}
