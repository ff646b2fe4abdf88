//! Mistral: Llama's block whose attention looks back a limited way.
//!
//! It knows nothing but that difference. Read `llama.rs` for the block.

use super::builder::{Builder, Family};
use super::llama::{Variation, decoder};
use crate::error::Result;

pub(super) fn build(builder: &mut Builder<'_>) -> Result<Family> {
    let window = builder.config.opt_usize("sliding_window")?;
    let none = Variation { qkv_bias: false, output_bias: false, mlp_bias: false, qk_norm: false, window };
    decoder(builder, &none)
}
