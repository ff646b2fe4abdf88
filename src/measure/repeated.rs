//! Weights for measuring speed, which does not depend on their numbers.
//!
//! It deliberately knows no model. Read [`crate::weights`] for the trait.

use crate::random::Random;
use crate::tensor::{DType, Region, Tensor};
use crate::weights::{SourceError, Weights};

/// How many numbers are different.
const DIFFERENT: usize = 4096;

/// Weights of any name and shape: the same few random numbers over and over, made when they are read.
pub struct Repeated;

impl Weights for Repeated {
    fn read(&self, _: &str, _: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        let numbers = Random::new(1).tensor(DType::F32, &[DIFFERENT]);
        let values = numbers.as_f32()?.iter().copied().cycle().take(region.numel()).collect();
        Ok(Tensor::f32(region.shape(), values)?)
    }
}
