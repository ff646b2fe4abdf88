//! Mistral: Llama whose attention looks back a limited way.
//!
//! It knows nothing but that difference. Read `decoder.rs` for the block.

use super::builder::{Builder, Family};
use super::decoder::Decoder;
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let mut decoder = Decoder::read(b, b.config)?;
    let window = b.config.usize_or_null("sliding_window", 4096)?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    decoder.build(b)
}
