//! Random cases of an op: inputs of odd shapes with random values, from a seed.
//!
//! Property tests, benches and self-tests iterate over [`super::samples`] and so never name an op. A case knows
//! nothing of how it will be split or where it will run.

use super::Op;
use crate::tensor::{DType, Tensor};

/// A small deterministic generator (SplitMix64, Steele et al. 2014): neither cases, nor random weights, nor the text that a
/// seed gives may depend on a crate's version.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The golden ratio's 64 bits after the point: the state's step from word to word.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The word that comes after `n` others, without drawing these.
    pub fn nth(&self, n: u64) -> u64 {
        Random(self.0.wrapping_add(n.wrapping_mul(STEP))).word()
    }

    /// A number in `low..=high`.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.word() % (high - low + 1) as u64) as usize
    }

    /// A number in `-1..1`.
    pub fn unit(&mut self) -> f32 {
        ((self.word() >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    /// A number in `[0, 1)`, of the 53 bits that an f64 holds exactly.
    pub fn fraction(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `items`.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.range(0, items.len() - 1)]
    }

    /// A tensor of values in `-1..1`, rounded to `dtype`.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.unit()).collect();
        let mut tensor = Tensor::zeros(DType::F32, shape);
        tensor.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
        tensor.rounded(dtype)
    }

    /// A tensor of whole numbers below `bound`.
    pub fn indices(&mut self, bound: usize, shape: &[usize]) -> Tensor {
        let values: Vec<u32> = (0..shape.iter().product()).map(|_| self.range(0, bound - 1) as u32).collect();
        let mut tensor = Tensor::zeros(DType::U32, shape);
        tensor.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
        tensor
    }
}

/// What an input of a case is to a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Given with the context.
    Input,
    /// Held by the ranks.
    Weight,
    /// Held by the ranks and written in place.
    State,
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
    pub(super) fn mixed(mut self, random: &mut Random) -> Sample {
        if random.range(0, 1) == 0 {
            return self;
        }
        for (i, (role, tensor)) in self.inputs.iter_mut().enumerate() {
            let numbers = tensor.dtype() != DType::U32;
            *role = match self.op.in_place() {
                // A weight is never written; what is no state is copied first.
                Some(written) if written == i => random.pick(&[Role::Input, Role::State]),
                _ if numbers => random.pick(&[Role::Input, Role::Weight, Role::State]),
                _ => random.pick(&[Role::Input, Role::Weight]),
            };
            let dtype = match role {
                Role::Weight => random.pick(&[DType::F32, DType::F16, DType::BF16]),
                Role::Input | Role::State => DType::F32,
            };
            if numbers {
                *tensor = tensor.clone().widened().rounded(dtype);
            }
        }
        self
    }
}

/// How an op's family makes random cases: one row per ONNX name.
pub type Samples = [(&'static str, fn(&mut Random) -> Sample)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(
            [random.word(), random.word(), random.word()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
