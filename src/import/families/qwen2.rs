//! Qwen2: Llama with a bias on queries, keys and values, and a sliding window in some layers.
//!
//! It states only these differences. Read `decoder.rs` for the block, `layers.rs` for the choice of layers.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Decoder, projections};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let mut decoder = Decoder::read(b, b.config)?;
    layers::qwen(b.config, &mut decoder.layers)?;
    decoder.project = projections(decoder.hidden, decoder.heads, true);
    decoder.build(b)
}
