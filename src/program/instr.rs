//! The instructions of one rank, and the values, weights and states that they name: plain data.
//!
//! Nothing here knows a placement, a plan or a device. Read `lower/` for who makes instructions and [`crate::session`] for
//! who runs them.

use super::size::Size;
use crate::kernel::Layout;
use crate::ops::Op;
use crate::shape::{Env, Shape, resolve};
use crate::sharding::{Extent, Redistribute};
use crate::tensor::{DType, SymbolicRegion};
use serde::Serialize;

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
#[doc(hidden)]
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
#[doc(hidden)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[doc(hidden)]
pub enum Place {
    /// In a scratch buffer.
    Buffer(usize),
    /// In a loaded weight.
    Weight(usize),
    /// In a state.
    State(usize),
}

/// A weight as one rank loads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[doc(hidden)]
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
#[doc(hidden)]
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
#[doc(hidden)]
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

impl RankProgram {
    /// What the instruction of this number makes, or what it returns: the name of the graph's node, input or output, or of
    /// the value that is redistributed. None where there is no such instruction.
    #[doc(hidden)]
    pub fn node(&self, instr: usize) -> Option<&str> {
        self.instrs.get(instr).map(|instr| match instr {
            Instr::Input { name, .. } | Instr::Output { name, .. } => name.as_str(),
            Instr::Compute { node, .. } | Instr::Exchange { node, .. } => node.as_str(),
            Instr::Zero { output } => self.values[*output].name.as_str(),
        })
    }

    /// How many exchanges a call makes.
    #[doc(hidden)]
    pub fn exchanges(&self) -> usize {
        self.instrs.iter().filter(|i| matches!(i, Instr::Exchange { .. })).count()
    }
}
