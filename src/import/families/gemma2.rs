//! Gemma 2: norms on both sides of attention and MLP, whose weights are differences from one; scaled embeddings; soft
//! caps on attention and on the logits; and layers that slide by turns.
//!
//! It knows nothing but those differences from Llama. Read `decoder.rs` for the block, `gemma3.rs` for what came next.

use crate::error::Result;
use crate::import::Config;
use crate::import::builder::{Builder, Family};
use crate::import::decoder::{Decoder, Norms, gated_mlp};
use crate::import::layers;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let config = b.config;
    let mut decoder = gemma(b, config)?;
    let window = config.usize_or_null("sliding_window", 4096)?;
    layers::slide(config, &mut decoder.layers, window, |layer| layer % 2 == 0)?;
    decoder.attention_softcap = config.positive_or_null("attn_logit_softcapping", 50.0)?.map(|cap| cap as f32);
    decoder.logit_softcap = config.positive_or_null("final_logit_softcapping", 30.0)?.map(|cap| cap as f32);
    decoder.build(b)
}

/// What Gemma 2 and 3 share.
pub(super) fn gemma(b: &Builder<'_>, config: &Config) -> Result<Decoder> {
    if config.bool_or("use_bidirectional_attention", false)? {
        return Err(config.error("use_bidirectional_attention", "only false is supported"));
    }
    let mut decoder = Decoder::read(b, config)?;
    let activation = b.activation(config, "hidden_activation", "gelu_pytorch_tanh")?;
    decoder.mlp = gated_mlp("mlp", [config.usize("intermediate_size")?, decoder.hidden], activation, false);
    decoder.norm.offset = 1.0;
    decoder.norms = Norms {
        before_attention: Some("input_layernorm"),
        after_attention: Some("post_attention_layernorm"),
        before_mlp: Some("pre_feedforward_layernorm"),
        after_mlp: Some("post_feedforward_layernorm"),
    };
    decoder.embedding_scale = Some((decoder.hidden as f64).sqrt() as f32);
    decoder.attention_scale = (1.0 / config.positive_or("query_pre_attn_scalar", 256.0)?.sqrt()) as f32;
    decoder.biased_attention(config.bool_or("attention_bias", false)?);
    decoder.tied = config.bool_or("tie_word_embeddings", true)?;
    Ok(decoder)
}
