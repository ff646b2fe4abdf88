//! Llama, and the decoder block that Qwen2 and Qwen3 vary: RMSNormalization, rotary attention, a gated MLP.
//!
//! It knows the tensors' names and nothing of how they are split. Read `qwen3.rs` for how a variation is stated.

use super::builder::{Builder, Family, Heads};
use super::rope::frequencies;
use crate::error::Result;
use crate::graph::ValueId;
use crate::ops::Reshape;

/// What the families that share this block vary.
pub(super) struct Variation {
    /// Projections of queries, keys and values have a bias.
    pub(super) qkv_bias: bool,
    /// The attention's output projection has a bias.
    pub(super) output_bias: bool,
    /// The MLP's projections have a bias.
    pub(super) mlp_bias: bool,
    /// Each head's query and key are normalised before they are rotated.
    pub(super) qk_norm: bool,
    /// A query sees only this many positions up to its own.
    pub(super) window: Option<usize>,
}

pub(super) fn build(builder: &mut Builder<'_>) -> Result<Family> {
    let bias = builder.config.bool_or("attention_bias", false)?;
    let mlp_bias = builder.config.bool_or("mlp_bias", false)?;
    decoder(builder, &Variation { qkv_bias: bias, output_bias: bias, mlp_bias, qk_norm: false, window: None })
}

/// The heads that a configuration states, checked against each other.
pub(super) fn heads(builder: &Builder<'_>, hidden: usize) -> Result<Heads> {
    let config = builder.config;
    let heads = config.usize(["num_attention_heads", "n_head"])?;
    let kv_heads = config.usize_or("num_key_value_heads", heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(config.error("num_key_value_heads", format!("{kv_heads} does not divide {heads} query heads")));
    }
    let head_dim = match config.opt_usize("head_dim")? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(config.error("num_attention_heads", format!("{heads} does not divide hidden {hidden}"))),
    };
    Ok(Heads { heads, kv_heads, head_dim })
}

pub(super) fn decoder(b: &mut Builder<'_>, variation: &Variation) -> Result<Family> {
    let config = b.config;
    let (hidden, inner) = (config.usize("hidden_size")?, config.usize("intermediate_size")?);
    let (vocabulary, layers) = (config.usize("vocab_size")?, config.usize("num_hidden_layers")?);
    let epsilon = config.positive_or("rms_norm_eps", 1e-6)?;
    if config.bool_or("use_sliding_window", false)? {
        return Err(config.error("use_sliding_window", "sliding windows are not supported yet"));
    }
    let heads = heads(b, hidden)?;
    let activation = b.activation("hidden_act", "silu")?;
    let (ids, positions) = (b.ids("input_ids")?, b.ids("position_ids")?);
    let tables = b.rope_tables(&frequencies(config, heads.head_dim)?)?;
    let mut x = b.gather("model.embed_tokens", ids, [vocabulary, hidden])?;
    for layer in 0..layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed = b.rms_norm(&name("input_layernorm"), x, hidden, epsilon)?;
        let widths = [("q", heads.heads), ("k", heads.kv_heads), ("v", heads.kv_heads)];
        let mut qkv = [normed; 3];
        for (slot, (part, n)) in qkv.iter_mut().zip(widths) {
            let prefix = name(&format!("self_attn.{part}_proj"));
            *slot = b.linear(&prefix, normed, [n * heads.head_dim, hidden], variation.qkv_bias)?;
            if part == "v" {
                continue;
            }
            if variation.qk_norm {
                *slot = head_norm(b, &name(&format!("self_attn.{part}_norm")), *slot, heads.head_dim, epsilon)?;
            }
            *slot = b.rotate(&name(&format!("self_attn.{part}_rope")), *slot, n, tables, positions)?;
        }
        let attended = b.cached_attention(&name("self_attn"), heads, variation.window, qkv)?;
        let width = heads.heads * heads.head_dim;
        let out = b.linear(&name("self_attn.o_proj"), attended, [hidden, width], variation.output_bias)?;
        x = b.add(&name("self_attn.residual"), x, out)?;
        let normed = b.rms_norm(&name("post_attention_layernorm"), x, hidden, epsilon)?;
        let gate = b.linear(&name("mlp.gate_proj"), normed, [inner, hidden], variation.mlp_bias)?;
        let gate = b.unary(&name("mlp.act"), activation, gate)?;
        let up = b.linear(&name("mlp.up_proj"), normed, [inner, hidden], variation.mlp_bias)?;
        let gated = b.mul(&name("mlp.gated"), gate, up)?;
        let down = b.linear(&name("mlp.down_proj"), gated, [hidden, inner], variation.mlp_bias)?;
        x = b.add(&name("mlp.residual"), x, down)?;
        b.layers.push(x);
    }
    let x = b.rms_norm("model.norm", x, hidden, epsilon)?;
    let tied = config.bool_or("tie_word_embeddings", false)?;
    let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let logits = b.weight(head, &[vocabulary, hidden])?;
    let context = config.usize("max_position_embeddings")?;
    Ok(Family::decoder(x, logits, vocabulary, context))
}

/// RMSNormalization of each head by itself.
fn head_norm(b: &mut Builder<'_>, prefix: &str, x: ValueId, head_dim: usize, epsilon: f64) -> Result<ValueId> {
    let split = Reshape::new("b s (h d) -> b s h d", &[("d", head_dim)]);
    let split = b.graph.node(&format!("{prefix}.heads"), split, &[x])?;
    let normed = b.rms_norm(prefix, split, head_dim, epsilon)?;
    b.graph.node(&format!("{prefix}.joined"), Reshape::new("b s h d -> b s (h d)", &[]), &[normed])
}
