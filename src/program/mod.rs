//! What every rank executes: one plain list of instructions, printable, comparable, run unchanged by any device.
//!
//! A program deliberately knows nothing of placements, plans or devices: after lowering there are only local values,
//! ops with the extents of a part, and exchanges of boxes. Read `lower.rs` for how it is made
//! and [`crate::session`] for who runs it.

mod error;

pub use error::{ProgramError, Shortfall, TooWide};

mod lower;
mod room;

pub use lower::lower;
pub use room::{Holding, Room, Tenant, check};

use crate::kernel::{Layout, weight_bytes};
use crate::ops::Op;
use crate::shape::{Dim, Env, Limits, Shape, Symbol, display_shape, resolve};
use crate::sharding::{Extent, Redistribute};
use crate::tensor::{DType, SymbolicRegion};
use serde::Serialize;
use std::fmt;

/// One list of instructions per rank.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// What each rank does.
    pub ranks: Vec<RankProgram>,
    /// What a call must give.
    pub inputs: Vec<Port>,
    /// What a call returns.
    pub outputs: Vec<Port>,
}

/// An input or output of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its whole shape.
    pub shape: Shape,
    /// The type of its elements.
    pub dtype: DType,
}

/// What one rank holds and does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankProgram {
    /// The rank.
    pub rank: usize,
    /// Every tensor it touches.
    pub values: Vec<LocalValue>,
    /// Scratch memory that activations share as their lives allow; each the size of its largest tenant.
    pub buffers: Vec<Size>,
    /// The weights it loads.
    pub weights: Vec<WeightShard>,
    /// The states it keeps.
    pub states: Vec<Shape>,
    /// What it does, in order.
    pub instrs: Vec<Instr>,
}

/// A tensor on one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalValue {
    /// The graph's name of it.
    pub name: String,
    /// The rank's part of its shape.
    pub shape: Shape,
    /// The type of its elements.
    pub dtype: DType,
    /// Where it lies.
    pub place: Place,
}

/// Where a local value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Place {
    /// In a scratch buffer.
    Buffer(usize),
    /// In a loaded weight.
    Weight(usize),
    /// In a state.
    State(usize),
}

/// Elements that depend on the call: a number times symbols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The number.
    pub count: usize,
    /// The symbols, sorted.
    pub symbols: Vec<crate::shape::Symbol>,
}

impl Size {
    /// The elements of `shape`.
    pub fn of(shape: &[Dim]) -> Size {
        let mut symbols: Vec<_> =
            shape.iter().filter_map(|d| if let Dim::Symbol(s) = d { Some(*s) } else { None }).collect();
        symbols.sort_unstable();
        Size { count: shape.iter().filter_map(|d| d.fixed()).fold(1, usize::saturating_mul), symbols }
    }

    /// The most elements in calls up to `limits`.
    pub fn max(&self, limits: &Limits) -> usize {
        let product = |symbols: &mut dyn Iterator<Item = &Symbol>| {
            symbols.fold(1usize, |n, &s| n.saturating_mul(Dim::Symbol(s).resolve(limits)))
        };
        let per_token = |s: &&Symbol| matches!(s, Symbol::Batch | Symbol::Seq | Symbol::Keep);
        let mut tokens = product(&mut self.symbols.iter().filter(per_token));
        let count = |wanted: fn(&Symbol) -> bool| self.symbols.iter().filter(|s| wanted(s)).count();
        let (batch, positions) = (count(|s| *s == Symbol::Batch), count(|s| matches!(s, Symbol::Seq | Symbol::Keep)));
        if batch > 0 {
            // Each `batch` is paired with a `seq`, or a `keep`, which is at most `seq`: together they are the tokens.
            let pairs = batch.min(positions).max(1);
            let power = |n: usize, times: usize| (0..times).fold(1usize, |product, _| product.saturating_mul(n));
            let rest =
                power(limits.batch, batch - pairs).saturating_mul(power(limits.seq, positions.saturating_sub(pairs)));
            tokens = tokens.min(power(limits.tokens.max(limits.batch), pairs).saturating_mul(rest));
        }
        let others = product(&mut self.symbols.iter().filter(|s| !per_token(s)));
        self.count.saturating_mul(tokens).saturating_mul(others)
    }
}

/// A weight as one rank loads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightShard {
    /// The weight's name.
    pub name: String,
    /// Its whole shape.
    pub shape: Shape,
    /// Its type in the file.
    pub dtype: DType,
    /// How it lies on the device, for the ops that read it.
    pub layout: Layout,
    /// What the rank loads of it.
    pub part: WeightPart,
}

/// What a rank loads of a weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum WeightPart {
    /// The window of it; all of it when the window is empty of constraints.
    Region(SymbolicRegion),
    /// Zeros: the weight is an addend that enters on another rank.
    Zero,
}

impl WeightShard {
    /// The shape the rank holds, under `env`.
    pub fn local_shape(&self, env: &Env) -> Vec<usize> {
        let shape = resolve(&self.shape, env);
        match &self.part {
            WeightPart::Region(window) => window.resolve(&shape).shape(),
            WeightPart::Zero => shape,
        }
    }
}

/// One instruction of one rank. Numbers are indices into [`RankProgram::values`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Instr {
    /// Takes the call's input `name`.
    Input {
        /// The port.
        name: String,
        /// Where it goes.
        value: usize,
    },
    /// Evaluates the rank's part of an op.
    Compute {
        /// The graph's node, or the value that is redistributed.
        node: String,
        /// The op, as in the whole.
        op: Op,
        /// What it reads.
        inputs: Vec<usize>,
        /// What it writes.
        output: usize,
        /// The rank's part of every factor.
        extents: Vec<Extent>,
    },
    /// Fills with zeros.
    Zero {
        /// What.
        output: usize,
    },
    /// Exchanges boxes with every rank, itself included.
    Exchange {
        /// The value that is redistributed.
        node: String,
        /// The collective it is.
        kind: Redistribute,
        /// What is sent from.
        from: usize,
        /// What is received into.
        to: usize,
        /// For each rank the box of `from` that it gets, if any.
        send: Vec<Option<SymbolicRegion>>,
        /// For each rank the box of `to` that it fills, if any.
        receive: Vec<Option<SymbolicRegion>>,
    },
    /// Returns a part of the output `name`.
    Output {
        /// The port.
        name: String,
        /// What is returned.
        value: usize,
        /// Which box of the whole it is.
        window: SymbolicRegion,
    },
}

/// Bytes that one rank needs on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Its shards of the weights, as they lie on the device.
    pub weights: u64,
    /// Its KV cache, at the session's capacity.
    pub state: u64,
    /// Scratch buffers.
    pub activations: u64,
    /// Buffers that bytes pass through on their way to and from the host.
    pub staging: u64,
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        sum([self.weights, self.state, self.activations, self.staging].into_iter())
    }
}

impl RankProgram {
    /// What the rank needs in sessions whose calls are at most `limits`.
    pub fn memory(&self, limits: &Limits) -> Memory {
        // Saturating: a made-up configuration may call for more than can be counted, and is refused for it.
        let elements = |shape: &Shape| (Size::of(shape).max(limits) as u64).saturating_mul(4);
        // What passes through the host: a call's inputs and the largest exchange twice over, since one may be filled
        // while the other is read, and the largest value read back.
        let (mut inputs, mut received, mut sent) = (0, 0, 0);
        for instr in &self.instrs {
            match instr {
                Instr::Input { value, .. } => inputs = sum([inputs, elements(&self.values[*value].shape)].into_iter()),
                Instr::Output { value, .. } => sent = sent.max(elements(&self.values[*value].shape)),
                Instr::Exchange { from, to, .. } => {
                    received = received.max(elements(&self.values[*to].shape));
                    sent = sent.max(elements(&self.values[*from].shape));
                }
                Instr::Compute { .. } | Instr::Zero { .. } => {}
            }
        }
        Memory {
            weights: sum(self.weights.iter().map(|w| weight_bytes(w.dtype, &w.local_shape(limits), w.layout))),
            state: sum(self.states.iter().map(elements)),
            activations: sum(self.buffers.iter().map(|b| (b.max(limits) as u64).saturating_mul(4))),
            staging: sum([inputs, inputs, received, received, sent].into_iter()),
        }
    }

    /// What the instruction of this number makes, or what it returns: the name of the graph's node, input or output, or of
    /// the value that is redistributed. None where there is no such instruction.
    pub fn node(&self, instr: usize) -> Option<&str> {
        self.instrs.get(instr).map(|instr| match instr {
            Instr::Input { name, .. } | Instr::Output { name, .. } => name.as_str(),
            Instr::Compute { node, .. } | Instr::Exchange { node, .. } => node.as_str(),
            Instr::Zero { output } => self.values[*output].name.as_str(),
        })
    }

    /// How many exchanges a call makes.
    pub fn exchanges(&self) -> usize {
        self.instrs.iter().filter(|i| matches!(i, Instr::Exchange { .. })).count()
    }
}

impl Program {
    /// Checks that the devices can hold it in sessions whose calls are at most `limits`; `rooms` gives each rank's.
    ///
    /// Errors as [`check`].
    pub fn check(&self, limits: &Limits, rooms: &[Room]) -> Result<(), ProgramError> {
        check(&self.tenants(limits, rooms))
    }

    /// Its ranks, each on its device.
    pub fn tenants<'a>(&'a self, limits: &'a Limits, rooms: &'a [Room]) -> Vec<Tenant<'a>> {
        self.ranks.iter().zip(rooms).map(|(rank, room)| Tenant { rank, limits, room }).collect()
    }
}

impl fmt::Display for RankProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |v: usize| format!("%{v}");
        for (id, weight) in self.weights.iter().enumerate() {
            let part = match &weight.part {
                WeightPart::Zero => " zero".to_string(),
                WeightPart::Region(window) => {
                    window.0.iter().map(|(dim, r)| format!(" dim {dim} {}..{}", r.start, r.end)).collect()
                }
            };
            // A vector lies densely in any case.
            let dense = weight.layout == Layout::Dense && weight.shape.len() > 1;
            let dense = if dense { " dense" } else { "" };
            let shape = display_shape(&weight.shape);
            writeln!(f, "weight {id:<3} {} {}{shape}{dense}{part}", weight.name, weight.dtype)?;
        }
        for instr in &self.instrs {
            match instr {
                Instr::Input { name, value: v } => writeln!(f, "{:<5}= input {name}", value(*v))?,
                Instr::Zero { output } => {
                    writeln!(f, "{:<5}= zero # {}", value(*output), self.values[*output].name)?;
                }
                Instr::Compute { node, op, inputs, output, extents } => {
                    let inputs: Vec<String> = inputs
                        .iter()
                        .map(|&v| match self.values[v].place {
                            Place::Buffer(_) => value(v),
                            Place::Weight(w) => format!("weight {w}"),
                            Place::State(s) => format!("state {s}"),
                        })
                        .collect();
                    let extents: Vec<String> = extents.iter().map(|e| e.to_string()).collect();
                    let (inputs, extents) = (inputs.join(", "), extents.join(" "));
                    writeln!(f, "{:<5}= {} {inputs} [{extents}] # {node}", value(*output), op.name())?;
                }
                Instr::Exchange { node, kind, from, to, .. } => {
                    writeln!(
                        f,
                        "{:<5}= {kind} {} {} -> {} # {node}",
                        value(*to),
                        value(*from),
                        display_shape(&self.values[*from].shape),
                        display_shape(&self.values[*to].shape)
                    )?;
                }
                Instr::Output { name, value: v, window } => {
                    let window: String =
                        window.0.iter().map(|(dim, r)| format!(" dim {dim} {}..{}", r.start, r.end)).collect();
                    writeln!(f, "output {name} {}{window}", value(*v))?;
                }
            }
        }
        Ok(())
    }
}
