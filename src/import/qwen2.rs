//! Qwen2: Llama with a bias on queries, keys and values, and a window on some layers.
//!
//! It knows nothing but those differences. Read `decoder.rs` for the block, `layers.rs` for which layers.

use super::builder::{Builder, Family};
use super::decoder::{Decoder, projections};
use super::layers;
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let mut decoder = Decoder::read(b, b.config)?;
    layers::qwen(b.config, &mut decoder.layers)?;
    decoder.project = projections(decoder.hidden, decoder.heads, true);
    decoder.build(b)
}
