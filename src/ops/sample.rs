//! Random cases of an op: inputs of odd shapes with random values, from a seed.
//!
//! Property tests, benches and self-tests iterate over [`super::samples`] and so never name an op. A case knows
//! nothing of how it will be split or where it will run.

use super::operator::Op;
use crate::format::Format;
use crate::random::Random;
use crate::tensor::{DType, Tensor};

/// What an input of a case is to a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Given with the context.
    Input,
    /// Held by the ranks, in this format.
    Weight(Format),
    /// Held by the ranks and written in place.
    State,
}

/// `tensor` as a weight that is stored in its own type.
pub fn weight(tensor: Tensor) -> (Role, Tensor) {
    (Role::Weight(tensor.dtype().into()), tensor)
}

/// One case: an op on inputs.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The op.
    pub op: Op,
    /// Its inputs, whole.
    pub inputs: Vec<(Role, Tensor)>,
    /// Positions already in the state.
    pub past: usize,
}

impl Sample {
    /// A case with no past.
    pub fn new(op: impl Into<Op>, inputs: Vec<(Role, Tensor)>) -> Sample {
        Sample { op: op.into(), inputs, past: 0 }
    }

    /// Half of the time the same case with other roles: whatever may stand at an input of a graph of one's own.
    ///
    /// A product may be of two activations, a table of embeddings may be computed, and an activation may be a weight of
    /// any type, or a state.
    pub fn mixed(mut self, random: &mut Random) -> Sample {
        if random.range(0, 1) == 0 {
            return self;
        }
        for (i, (role, tensor)) in self.inputs.iter_mut().enumerate() {
            let numbers = tensor.dtype() != DType::U32;
            // A format with blocks where the rows are made of them; a weight in another type than its source's is encoded when
            // it is loaded.
            let formats = Format::NUMBERS.into_iter().filter(|format| format.holds(tensor.shape())).collect::<Vec<_>>();
            let stored = Role::Weight(if numbers { random.pick(&formats) } else { Format::U32 });
            *role = match self.op.in_place() {
                // A weight is never written; what is no state is copied first.
                Some(written) if written == i => random.pick(&[Role::Input, Role::State]),
                _ if numbers => random.pick(&[Role::Input, stored, Role::State]),
                _ => random.pick(&[Role::Input, stored]),
            };
            if numbers {
                *tensor = tensor.clone().widened();
            }
        }
        self
    }
}

/// How an op's family makes random cases: one row per ONNX name.
#[doc(hidden)]
pub type Samples = [(&'static str, MakeSample)];

/// Makes a random case.
#[doc(hidden)]
pub type MakeSample = fn(&mut Random) -> Sample;
