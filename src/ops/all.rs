//! The list of the crate's own ops, for whoever does something with every one of them.
//!
//! A new op of the crate is added here and in `mod.rs`, nowhere else. Read `sample.rs` for what a case is.

use super::attention::Attention;
use super::binary::Binary;
use super::cache::TensorScatter;
use super::experts::Experts;
use super::gather::Gather;
use super::layout::{Reshape, Slice, Transpose};
use super::linear::Linear;
use super::normalization::Normalization;
use super::reduce::Reduce;
use super::rotary::RotaryEmbedding;
use super::routing::Routing;
use super::sample::MakeSample;
use super::softmax::Softmax;
use super::unary::Unary;

/// The random cases of every op that the crate brings, for tests, benches and self-tests: the op's name and a maker of cases.
///
/// This is the one list that a new op of the crate is added to. An op of one's own brings its cases to
/// [`crate::proof::check_op`] itself.
#[doc(hidden)]
pub fn samples() -> Vec<(&'static str, MakeSample)> {
    [
        Linear::SAMPLES,
        Gather::SAMPLES,
        Normalization::SAMPLES,
        RotaryEmbedding::SAMPLES,
        Attention::SAMPLES,
        TensorScatter::SAMPLES,
        Unary::SAMPLES,
        Binary::SAMPLES,
        Softmax::SAMPLES,
        Reshape::SAMPLES,
        Transpose::SAMPLES,
        Slice::SAMPLES,
        Reduce::SAMPLES,
        Routing::SAMPLES,
        Experts::SAMPLES,
    ]
    .concat()
}
