//! [`Random`]: a small deterministic generator of random numbers, for test cases, random weights and the sampling of
//! tokens.
//!
//! It deliberately uses no randomness of the operating system: a seed gives the same numbers on every machine and in
//! every version. Read [`crate::ops::sample`] next for the random test cases of ops.

use crate::tensor::{DType, Tensor};

/// A SplitMix64 generator (Steele et al. 2014); the number is its state. The crate has its own implementation because
/// the test cases, weights and generated text that a seed gives must not change with the version of a dependency.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The number that is added to the state for each word: the first 64 bits after the binary point of the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl Random {
    /// A generator that starts at `seed`. Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next word: 64 random bits.
    #[doc(hidden)]
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The word that [`Random::word`] would return after `n` other calls, computed directly and without changing the
    /// state. `nth(0)` is the next word.
    #[doc(hidden)]
    pub fn nth(&self, n: u64) -> u64 {
        Random(self.0.wrapping_add(n.wrapping_mul(STEP))).word()
    }

    /// A whole number in `low..=high`. `high` must not be below `low`.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.word() % (high - low + 1) as u64) as usize
    }

    /// A number in `[-1, 1)` with 24 random bits, as many as an f32 holds exactly.
    #[doc(hidden)]
    pub fn unit(&mut self) -> f32 {
        ((self.word() >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    /// A number in `[0, 1)` with 53 random bits, as many as an f64 holds exactly.
    #[doc(hidden)]
    pub fn fraction(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A random one of `items`, of which there must be at least one.
    #[doc(hidden)]
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.range(0, items.len() - 1)]
    }

    /// A tensor of `shape` with values in `[-1, 1)`, rounded to `dtype`.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.unit()).collect();
        let mut tensor = Tensor::zeros(DType::F32, shape);
        tensor.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
        tensor.rounded(dtype)
    }

    /// A `U32` tensor of `shape` with whole numbers in `0..bound`, such as token ids.
    #[doc(hidden)]
    pub fn indices(&mut self, bound: usize, shape: &[usize]) -> Tensor {
        let values: Vec<u32> = (0..shape.iter().product()).map(|_| self.range(0, bound - 1) as u32).collect();
        let mut tensor = Tensor::zeros(DType::U32, shape);
        tensor.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
        tensor
    }
}

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
