//! Lowering: from a graph and a plan to one list of instructions per rank.
//!
//! It is written once, over sharding rules: a node's cut says in which placement it needs each input, and a value
//! that is held in another placement is redistributed first. It names no op but the one that redistribution needs,
//! Slice. Read [`crate::sharding`] first.

mod draft;
mod redistribute;

use super::allocate::share_buffers;
use super::error::ProgramError;
use super::instr::{Fused, Instr, Place, Port, Program, RankProgram, WeightPart, WeightShard};
use super::passes;
use crate::graph::{Graph, Source, ValueId};
use crate::kernel::Layout;
use crate::ops::{Op, Slice};
use crate::plan::Plan;
use crate::shape::{Dim, Shape};
use crate::sharding::{Cut, Placement};
use crate::tensor::{DType, SymbolicRegion};
use draft::Draft;
use std::collections::HashMap;

/// Lowers `graph` under `plan`. Errors when the plan is for another graph or cuts what may not be cut.
pub fn lower(graph: &Graph, plan: &Plan) -> Result<Program, ProgramError> {
    let cuts = plan.resolve(graph)?;
    let mut lowering = Lowering {
        graph,
        world: plan.world_size,
        held: HashMap::new(),
        weights: HashMap::new(),
        states: HashMap::new(),
        ranks: (0..plan.world_size).map(Draft::new).collect(),
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
        // A weight that is an output is returned as devices hold it, widened to f32.
        outputs.push(Port { name: name.clone(), shape: value.shape.clone(), dtype: value.dtype });
    }
    let inputs = graph.values().filter(|(_, v)| v.source == Source::Input);
    let inputs = inputs.map(|(_, v)| Port { name: v.name.clone(), shape: v.shape.clone(), dtype: v.dtype });
    let inputs = inputs.collect();
    Ok(Program { inputs, outputs, ranks: lowering.ranks.into_iter().map(finish).collect() })
}

/// The number of one value on each rank.
type Locals = Vec<usize>;

struct Lowering<'a> {
    graph: &'a Graph,
    world: usize,
    /// The placements in which each value is held so far; the one that it was computed in comes first.
    held: HashMap<ValueId, Vec<(Placement, Locals)>>,
    /// The same for weights, which may be held in two layouts at once.
    weights: HashMap<(ValueId, Layout), Vec<(Placement, Locals)>>,
    /// The placement of each state, decided by the first node that uses it.
    states: HashMap<ValueId, Placement>,
    ranks: Vec<Draft>,
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
                    fused: Fused::Alone,
                });
                output
            })
            .collect();
        self.held.insert(node.output, vec![(made, outputs)]);
        Ok(())
    }

    /// The placements of the inputs and of the output of a node that is not cut: Partial inputs stay Partial where
    /// the op is linear in them, everything else is Replicate.
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

    /// A copy of a value, for an op that writes in place into something that is not a state.
    fn copy(&mut self, id: ValueId, placement: &Placement, locals: &Locals) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        let shape = |r: usize| placement.local_shape(&value.shape, r);
        let whole = |r: usize| {
            let len = shape(r).first().copied().unwrap_or(Dim::Fixed(1));
            Op::from(Slice { axis: 0, start: Some(0), len })
        };
        self.local((&value.name, value.dtype), locals, shape, whole)
    }

    /// The value `id` in `placement`, redistributed if it is held in others only. A weight is loaded in `layout`.
    fn obtain(&mut self, id: ValueId, placement: &Placement, layout: Layout) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        if value.format().is_some() {
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
        // A replicated value can be redistributed without an exchange, so it is preferred as the source.
        let whole = held.iter().find(|(p, _)| *p == Placement::Replicate).or(held.first()).cloned();
        let (from, locals) = whole.ok_or_else(|| missing(&value.name))?;
        let locals = self.redistribute(id, &from, &locals, placement)?;
        self.held.entry(id).or_default().push((placement.clone(), locals.clone()));
        Ok(locals)
    }

    fn weight(&mut self, id: ValueId, placement: &Placement, layout: Layout) -> Locals {
        let value = self.graph.value(id);
        let format = value.format().unwrap_or(value.dtype.into());
        let place = |(r, rank): (usize, &mut Draft)| {
            let part = match placement {
                Placement::Shard { dim, cut } => WeightPart::Region(SymbolicRegion(vec![(*dim, cut.range(r))])),
                Placement::Partial if r > 0 => WeightPart::Zero,
                Placement::Partial | Placement::Replicate => WeightPart::Region(SymbolicRegion::default()),
            };
            let (name, shape) = (value.name.clone(), value.shape.clone());
            rank.program.weights.push(WeightShard { name, shape, format, layout, part });
            let place = Place::Weight(rank.program.weights.len() - 1);
            rank.value(&value.name, value.dtype, placement.local_shape(&value.shape, r), place)
        };
        self.ranks.iter_mut().enumerate().map(place).collect()
    }

    fn state(&mut self, id: ValueId, state: ValueId, placement: &Placement) -> Result<Locals, ProgramError> {
        let value = self.graph.value(id);
        if *self.states.entry(state).or_insert_with(|| placement.clone()) != *placement || id != state {
            let (node, state) = (value.name.clone(), self.graph.value(state).name.clone());
            return Err(ProgramError::State { node, state });
        }
        let place = |(r, rank): (usize, &mut Draft)| {
            let shape = placement.local_shape(&value.shape, r);
            rank.program.states.push(shape.clone());
            let place = Place::State(rank.program.states.len() - 1);
            rank.value(&value.name, value.dtype, shape, place)
        };
        Ok(self.ranks.iter_mut().enumerate().map(place).collect())
    }

    fn output(&mut self, name: &str, id: ValueId) -> Result<(), ProgramError> {
        let held = self.held.get(&id).cloned().unwrap_or_default();
        // Each rank returns its own shard of an output and the host stacks them, so that an output needs no exchange.
        let disjoint = |cut: &Cut| (0..cut.world_size()).all(|r| cut.owned(r) == cut.range(r));
        let stacked = match held.first() {
            Some((Placement::Shard { dim, cut }, locals)) if held.len() == 1 && disjoint(cut) => {
                Some((*dim, cut.clone(), locals.clone()))
            }
            _ => None,
        };
        if let Some((dim, cut, locals)) = stacked {
            for (r, rank) in self.ranks.iter_mut().enumerate().filter(|(r, _)| !cut.range(*r).is_empty()) {
                let region = SymbolicRegion(vec![(dim, cut.range(r))]);
                rank.program.instrs.push(Instr::Output { name: name.to_string(), value: locals[r], region });
            }
        } else {
            let value = self.obtain(id, &Placement::Replicate, Layout::Dense)?[0];
            let output = Instr::Output { name: name.to_string(), value, region: SymbolicRegion::default() };
            self.ranks[0].program.instrs.push(output);
        }
        Ok(())
    }
}

fn missing(name: &str) -> ProgramError {
    ProgramError::Unmade { value: name.to_string() }
}

/// The passes and the allocation of buffers that follow the lowering of one rank.
fn finish(draft: Draft) -> RankProgram {
    let mut program = draft.program;
    passes::run(&mut program);
    share_buffers(&mut program);
    program
}
