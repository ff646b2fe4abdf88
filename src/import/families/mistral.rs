//! Mistral: Llama with a sliding window in attention.
//!
//! It states only that difference. Read `decoder.rs` for the block.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::Decoder;
use crate::import::blocks::family::Family;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let mut decoder = Decoder::read(b, b.config)?;
    let window = b.config.opt_usize("sliding_window")?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    decoder.build(b)
}
