//! The instructions of one rank, and the values, weights and states that they name: plain data.
//!
//! Nothing here knows a placement, a plan or a device. Read `lower/` for who makes instructions and [`crate::session`] for
//! who runs them.

use super::size::Size;
use crate::format::Format;
use crate::kernel::{Layout, Numerics, weight_rows};
use crate::ops::Op;
use crate::shape::{Env, Shape, resolve};
use crate::sharding::{Extent, Redistribute};
use crate::tensor::{DType, SymbolicRegion};
use serde::Serialize;
use std::slice;

/// A program: one list of instructions per rank.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// Each rank's part.
    pub ranks: Vec<RankProgram>,
    /// The inputs that a call must give.
    pub inputs: Vec<Port>,
    /// The outputs that a call returns.
    pub outputs: Vec<Port>,
}

/// An input or output of the whole program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its shape, before it is divided over ranks.
    pub shape: Shape,
    /// The type of its elements.
    pub dtype: DType,
}

/// One rank's part of a program: what it holds, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankProgram {
    /// The rank.
    pub rank: usize,
    /// The order in which kernels add up sums, alike on all ranks; `None` leaves it to each device.
    pub numerics: Option<Numerics>,
    /// Every tensor that it reads or writes.
    pub values: Vec<LocalValue>,
    /// Scratch buffers, which activations share whose lives do not overlap; each has the size of the largest of them.
    pub buffers: Vec<Size>,
    /// The weight shards that it loads.
    pub weights: Vec<WeightShard>,
    /// The shapes of the states that it keeps.
    pub states: Vec<Shape>,
    /// Its instructions, in order.
    pub instrs: Vec<Instr>,
}

/// A tensor on one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub struct LocalValue {
    /// The name of the graph's value.
    pub name: String,
    /// The shape of the rank's part.
    pub shape: Shape,
    /// The type of its elements.
    pub dtype: DType,
    /// Where it is stored.
    pub place: Place,
}

/// Where a value of a rank is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[doc(hidden)]
pub enum Place {
    /// In the scratch buffer of this number.
    Buffer(usize),
    /// In the weight shard of this number.
    Weight(usize),
    /// In the state of this number.
    State(usize),
}

/// The shard of a weight that one rank loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub struct WeightShard {
    /// The weight's name.
    pub name: String,
    /// Its shape, before it is divided over ranks.
    pub shape: Shape,
    /// The format that it is stored in.
    pub format: Format,
    /// The layout on the device, for the ops that read it.
    pub layout: Layout,
    /// Which part of it the rank loads.
    pub part: WeightPart,
}

/// Which part of a weight a rank loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub enum WeightPart {
    /// This region; all of the weight when the region constrains no dimension.
    Region(SymbolicRegion),
    /// Zeros: the weight, a bias for example, is added on rank 0 only, and the other ranks' partial sums are added to
    /// it later.
    Zero,
}

impl WeightShard {
    /// The number of rows of the rank's shard on a device and the bytes of each, with the dimensions of `env`.
    pub(crate) fn rows(&self, env: &Env) -> (usize, usize) {
        weight_rows(self.format, &self.local_shape(env), self.layout)
    }

    /// The shape of the rank's shard, with the dimensions of `env`.
    pub fn local_shape(&self, env: &Env) -> Vec<usize> {
        let shape = resolve(&self.shape, env);
        match &self.part {
            WeightPart::Region(region) => region.resolve(&shape).shape(),
            WeightPart::Zero => shape,
        }
    }
}

/// How a `Compute` instruction is related to the one before it. The bits are the same whether a device makes use of it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[doc(hidden)]
pub enum Fused {
    /// Not at all.
    Alone,
    /// It is elementwise on the result of the instruction before it, which nothing else reads. Computed in one kernel, the result
    /// between them is not stored.
    Tail,
    /// It is of the same kind as an instruction before it, and neither needs the other: both can run as one dispatch. Between them
    /// stand only others that run beside them, and what is joined to these.
    Beside,
}

/// One instruction of one rank. Numbers are indices into [`RankProgram::values`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[doc(hidden)]
pub enum Instr {
    /// Writes the call's input `name` into a value.
    Input {
        /// The name of the input or output.
        name: String,
        /// The value that is written.
        value: usize,
    },
    /// Evaluates the rank's part of an op.
    Compute {
        /// The name of the graph's node, or of the value that is redistributed.
        node: String,
        /// The op, as the graph has it.
        op: Op,
        /// The values that it reads.
        inputs: Vec<usize>,
        /// The value that it writes.
        output: usize,
        /// The rank's part of every factor.
        extents: Vec<Extent>,
        /// How it is related to the instructions before it. A device may then compute them together, or each by itself.
        fused: Fused,
    },
    /// Fills a value with zeros.
    Zero {
        /// The value.
        output: usize,
    },
    /// Exchanges regions of a value with every rank, itself included.
    Exchange {
        /// The value that is redistributed.
        node: String,
        /// The collective that the exchange is a part of.
        kind: Redistribute,
        /// The value that is sent from.
        from: usize,
        /// The value that is received into.
        to: usize,
        /// For each rank the region of `from` that is sent to it, if any.
        send: Vec<Option<SymbolicRegion>>,
        /// For each rank the region of `to` that its message fills, if any.
        receive: Vec<Option<SymbolicRegion>>,
    },
    /// Returns the rank's shard of the output `name`.
    Output {
        /// The output's name.
        name: String,
        /// The value that is returned.
        value: usize,
        /// The region of the whole output that the value is.
        region: SymbolicRegion,
    },
}

impl Instr {
    /// The values that it reads.
    pub(super) fn reads(&self) -> &[usize] {
        match self {
            Instr::Compute { inputs, .. } => inputs,
            Instr::Exchange { from: value, .. } | Instr::Output { value, .. } => slice::from_ref(value),
            Instr::Input { .. } | Instr::Zero { .. } => &[],
        }
    }

    /// The value that it writes, if any.
    pub(super) fn writes(&self) -> Option<usize> {
        match self {
            Instr::Input { value, .. } => Some(*value),
            Instr::Compute { output, .. } | Instr::Zero { output } => Some(*output),
            Instr::Exchange { to, .. } => Some(*to),
            Instr::Output { .. } => None,
        }
    }
}

impl Program {
    /// The same program, of which all ranks add up sums in the order `numerics`; with `None`, each device in the order that suits it.
    #[doc(hidden)]
    pub fn with_numerics(mut self, numerics: Option<Numerics>) -> Program {
        self.ranks.iter_mut().for_each(|rank| rank.numerics = numerics);
        self
    }
}

impl RankProgram {
    /// How many instructions behind number `first` can be computed in its kernel.
    #[doc(hidden)]
    pub fn tail(&self, first: usize) -> usize {
        let after = self.instrs.iter().skip(first + 1);
        after.take_while(|instr| matches!(instr, Instr::Compute { fused: Fused::Tail, .. })).count()
    }

    /// The numbers of the instructions that can run as one dispatch, from number `first` on, itself included. What can be computed
    /// in the kernel of one of them stands behind it.
    #[doc(hidden)]
    pub fn sides(&self, first: usize) -> Vec<usize> {
        let mut sides = vec![first];
        loop {
            let next = sides.last().map_or(first, |&last| last + 1 + self.tail(last));
            match self.instrs.get(next) {
                Some(Instr::Compute { fused: Fused::Beside, .. }) => sides.push(next),
                _ => return sides,
            }
        }
    }

    /// The name of the graph's node, input or output that the instruction of this number belongs to, or of the value
    /// that it redistributes. `None` when there is no such instruction.
    #[doc(hidden)]
    pub fn node(&self, instr: usize) -> Option<&str> {
        self.instrs.get(instr).map(|instr| match instr {
            Instr::Input { name, .. } | Instr::Output { name, .. } => name.as_str(),
            Instr::Compute { node, .. } | Instr::Exchange { node, .. } => node.as_str(),
            Instr::Zero { output } => self.values[*output].name.as_str(),
        })
    }

    /// How many exchanges one call makes.
    #[doc(hidden)]
    pub fn exchanges(&self) -> usize {
        self.instrs.iter().filter(|i| matches!(i, Instr::Exchange { .. })).count()
    }
}
