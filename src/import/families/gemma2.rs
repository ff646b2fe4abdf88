//! Gemma 2: norms before and after attention and MLP, whose weights are stored as differences from one; scaled
//! embeddings; soft caps on attention scores and logits; and sliding windows on every other layer.
//!
//! It states only these differences from Llama. Read `decoder.rs` for the block, `gemma3.rs` for the next version.

use crate::import::ImportError;
use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::{Decoder, Norms, Settings};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::import::blocks::norm::Norm;
use crate::import::blocks::rope::Rope;
use crate::import::files::config::Config;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let heads = Heads::read(config, config.usize("hidden_size")?)?;
    let mut decoder = gemma(b, config, heads, Rope::of_whole_heads(config, heads.head_dim)?)?;
    let window = config.opt_usize("sliding_window")?;
    if let Some(window) = window {
        // The first published files state it under both names.
        config.agrees("sliding_window_size", window);
    }
    layers::slide(config, &mut decoder.layers, window, |layer| layer % 2 == 0)?;
    decoder.attention_softcap = config.opt_positive("attn_logit_softcapping")?.map(|cap| cap as f32);
    decoder.build(b)
}

/// The parts that Gemma 2 and 3 share, with heads rotated as `rope` says.
pub(crate) fn gemma(b: &Builder<'_>, config: &Config, heads: Heads, rope: Rope) -> Result<Decoder, ImportError> {
    if config.flag("use_bidirectional_attention")? {
        return Err(config.error("use_bidirectional_attention", "only false is supported"));
    }
    let (hidden, inner) = (config.usize("hidden_size")?, config.usize("intermediate_size")?);
    let norm = Norm { offset: 1.0, ..Norm::rms(config)? };
    let activation = b.activation(config, "hidden_activation")?;
    let mut decoder = Decoder::of(b, config, Settings { hidden, heads, inner, activation, norm, rope })?;
    decoder.norms = Norms {
        before_attention: Some("input_layernorm"),
        after_attention: Some("post_attention_layernorm"),
        before_mlp: Some("pre_feedforward_layernorm"),
        after_mlp: Some("post_feedforward_layernorm"),
    };
    decoder.embedding_scale = Some((decoder.hidden as f64).sqrt() as f32);
    decoder.attention_scale = (1.0 / config.positive("query_pre_attn_scalar")?.sqrt()) as f32;
    decoder.biased_attention(config.flag("attention_bias")?);
    decoder.logit_softcap = config.opt_positive("final_logit_softcapping")?.map(|cap| cap as f32);
    Ok(decoder)
}
