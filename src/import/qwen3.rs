//! Qwen3: Llama's block with each head's query and key normalised.
//!
//! It knows nothing but that difference. Read `llama.rs` for the block.

use super::builder::{Builder, Family};
use super::llama::{Variation, decoder};
use crate::error::Result;

pub(super) fn build(builder: &mut Builder<'_>) -> Result<Family> {
    let bias = builder.config.bool_or("attention_bias", false)?;
    decoder(builder, &Variation { qkv_bias: bias, output_bias: bias, mlp_bias: false, qk_norm: true, window: None })
}
