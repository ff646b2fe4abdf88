//! Mistral: Llama whose attention looks back a limited way.
//!
//! It knows nothing but that difference. Read `decoder.rs` for the block.

use crate::error::Result;
use crate::import::builder::{Builder, Family};
use crate::import::decoder::Decoder;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let mut decoder = Decoder::read(b, b.config)?;
    let window = b.config.opt_usize("sliding_window")?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    decoder.build(b)
}
