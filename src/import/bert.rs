//! BERT: learned positions and token types, bidirectional attention, normalisation after each residual.
//!
//! Its graph ends in hidden states; what pools them is told by the folder or the caller. Read `sentence.rs` next.

use super::builder::{Builder, Family};
use super::llama::heads;
use crate::error::Result;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let config = b.config;
    let (hidden, inner) = (config.usize("hidden_size")?, config.usize("intermediate_size")?);
    let (vocabulary, layers) = (config.usize("vocab_size")?, config.usize("num_hidden_layers")?);
    let (context, types) = (config.usize("max_position_embeddings")?, config.usize("type_vocab_size")?);
    let epsilon = config.positive_or("layer_norm_eps", 1e-12)?;
    let kind = config.str_or("position_embedding_type", "absolute")?;
    if kind != "absolute" {
        return Err(config.error("position_embedding_type", format!("{kind:?}: only \"absolute\" is supported")));
    }
    if config.bool_or("is_decoder", false)? {
        return Err(config.error("is_decoder", "only encoders are supported"));
    }
    let heads = heads(b, hidden)?;
    let activation = b.activation("hidden_act", "gelu")?;
    let prefix = b.prefix("bert.", "embeddings.word_embeddings.weight");
    let (ids, positions, segments) = (b.ids("input_ids")?, b.ids("position_ids")?, b.ids("token_type_ids")?);
    let embed = |part: &str| format!("{prefix}embeddings.{part}");
    let words = b.gather(&embed("word_embeddings"), ids, [vocabulary, hidden])?;
    let types = b.gather(&embed("token_type_embeddings"), segments, [types, hidden])?;
    let places = b.gather(&embed("position_embeddings"), positions, [context, hidden])?;
    let x = b.add(&embed("typed"), words, types)?;
    let x = b.add(&embed("placed"), x, places)?;
    let mut x = b.layer_norm(&embed("LayerNorm"), x, hidden, epsilon)?;
    for layer in 0..layers {
        let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
        let mut qkv = [x; 3];
        for (slot, part) in qkv.iter_mut().zip(["query", "key", "value"]) {
            *slot = b.linear(&name(&format!("attention.self.{part}")), x, [hidden, hidden], true)?;
        }
        let attended = b.attention(&name("attention.self"), heads, false, None, qkv)?;
        let out = b.linear(&name("attention.output.dense"), attended, [hidden, hidden], true)?;
        let sum = b.add(&name("attention.residual"), out, x)?;
        x = b.layer_norm(&name("attention.output.LayerNorm"), sum, hidden, epsilon)?;
        let wide = b.linear(&name("intermediate.dense"), x, [inner, hidden], true)?;
        let wide = b.unary(&name("intermediate.act"), activation, wide)?;
        let out = b.linear(&name("output.dense"), wide, [hidden, inner], true)?;
        let sum = b.add(&name("output.residual"), out, x)?;
        x = b.layer_norm(&name("output.LayerNorm"), sum, hidden, epsilon)?;
        b.layers.push(x);
    }
    Ok(Family { hidden: x, logits: None, vocabulary, context, generates: false })
}
