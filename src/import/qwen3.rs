//! Qwen3: Llama with each head's query and key normalised, and a window on some layers.
//!
//! It knows nothing but those differences. Read `decoder.rs` for the block, `layers.rs` for which layers.

use super::builder::{Builder, Family};
use super::decoder::{Decoder, QkNorm};
use super::layers;
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let mut decoder = Decoder::read(b, b.config)?;
    layers::qwen(b.config, &mut decoder.layers)?;
    decoder.qk_norm = QkNorm::Heads;
    decoder.biased_attention(b.config.bool_or("attention_bias", false)?);
    decoder.build(b)
}
