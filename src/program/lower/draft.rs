//! One rank's program in the making: values, buffers, weights and states are added as the lowering needs them.
//!
//! It deliberately knows no placement, and gives every scratch value a buffer of its own. Read `program/allocate.rs` for how
//! values come to share buffers.

use crate::program::instr::{LocalValue, Place, RankProgram};
use crate::program::size::Size;
use crate::shape::Shape;
use crate::tensor::DType;

/// The program of one rank, as far as it has been lowered.
pub(super) struct Draft {
    pub(super) program: RankProgram,
}

impl Draft {
    /// An empty program of rank `rank`.
    pub(super) fn new(rank: usize) -> Draft {
        let (numerics, values, buffers, weights, states, instrs) = Default::default();
        Draft { program: RankProgram { rank, numerics, values, buffers, weights, states, instrs } }
    }

    /// A value at `place`; returns its number.
    pub(super) fn value(&mut self, name: &str, dtype: DType, shape: Shape, place: Place) -> usize {
        self.program.values.push(LocalValue { name: name.to_string(), shape, dtype, place });
        self.program.values.len() - 1
    }

    /// A value in a scratch buffer of its own.
    pub(super) fn scratch(&mut self, name: &str, dtype: DType, shape: Shape) -> usize {
        self.program.buffers.push(Size::of(&shape));
        let place = Place::Buffer(self.program.buffers.len() - 1);
        self.value(name, dtype, shape, place)
    }

    /// A value that lies where the value `of` does, under another shape.
    pub(super) fn alias(&mut self, name: &str, shape: Shape, of: usize) -> usize {
        let LocalValue { dtype, place, .. } = self.program.values[of];
        self.value(name, dtype, shape, place)
    }
}
