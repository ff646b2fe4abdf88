//! Llama: RMSNormalization, rotary attention and a gated MLP, the starting point of `decoder.rs`; with biases if the
//! configuration has them.
//!
//! It states only that difference. Read `decoder.rs` for the block.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Decoder, gated_mlp};
use crate::import::blocks::family::Family;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let mut decoder = Decoder::read(b, config)?;
    decoder.biased_attention(config.flag("attention_bias")?);
    if config.flag("mlp_bias")? {
        let sizes = [config.usize("intermediate_size")?, decoder.hidden];
        decoder.mlp = gated_mlp("mlp", sizes, b.activation(config, "hidden_act")?, true);
    }
    decoder.build(b)
}
