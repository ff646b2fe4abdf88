//! OLMo 2: Llama with norms on the outputs of attention and MLP instead of their inputs, and with queries and keys
//! normalised over all heads together.
//!
//! It states only these differences. Read `decoder.rs` for the block.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Decoder, Norms, QkNorm};
use crate::import::blocks::family::Family;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let mut decoder = Decoder::read(b, config)?;
    decoder.norms = Norms {
        before_attention: None,
        after_attention: Some("post_attention_layernorm"),
        before_mlp: None,
        after_mlp: Some("post_feedforward_layernorm"),
    };
    decoder.qk_norm = QkNorm::Whole;
    decoder.biased_attention(config.flag("attention_bias")?);
    decoder.build(b)
}
