//! Qwen2: Llama's block with a bias on queries, keys and values.
//!
//! It knows nothing but that difference. Read `llama.rs` for the block.

use super::builder::{Builder, Family};
use super::llama::{Variation, decoder};
use crate::error::Result;

pub(super) fn build(builder: &mut Builder<'_>) -> Result<Family> {
    decoder(builder, &Variation { qkv_bias: true, output_bias: false, mlp_bias: false, qk_norm: false, window: None })
}
