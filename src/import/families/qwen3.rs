//! Qwen3: Llama with each head's query and key normalised, and a window on some layers.
//!
//! It knows nothing but those differences. Read `decoder.rs` for the block, `layers.rs` for which layers.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Decoder, QkNorm};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let mut decoder = Decoder::read(b, b.config)?;
    layers::qwen(b.config, &mut decoder.layers)?;
    decoder.qk_norm = QkNorm::Heads;
    decoder.biased_attention(b.config.flag("attention_bias")?);
    decoder.build(b)
}
