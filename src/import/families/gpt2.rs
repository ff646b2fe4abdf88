//! GPT-2: LayerNormalization, learned positions, and weights stored `[in, out]` with queries, keys and values fused.
//!
//! Views separate the fused weights here, so that sharding rules and plans see one weight per projection. Read
//! `builder.rs` for views.

use crate::graph::ValueId;
use crate::import::ImportError;
use crate::import::blocks::builder::{AttentionConfig, Builder, Heads, Logits};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::ops::Linear;

/// A linear layer with bias, made of columns `from..from + out` of a Conv1D's weight, which is stored as `[in, all]`.
fn conv1d(
    b: &mut Builder<'_>,
    (name, prefix): (&str, &str),
    x: ValueId,
    [out, width]: [usize; 2],
    (from, all): (usize, usize),
) -> Result<ValueId, ImportError> {
    let columns = from..from + out;
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    let rows = columns.clone();
    let weight = b.viewed(&weight, &format!("{prefix}.weight"), &[width, all], &[out, width], |view| {
        view.slice(1, rows)?.transpose(0, 1)
    })?;
    let bias = b.viewed(&bias, &format!("{prefix}.bias"), &[all], &[out], |view| view.slice(0, columns))?;
    Ok(b.graph.node(name, Linear, &[x, weight, bias])?)
}

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let hidden = config.usize(["n_embd", "hidden_size"])?;
    let layers = layers::count(config, ["n_layer", "num_hidden_layers"])?;
    let vocabulary = config.usize("vocab_size")?;
    let context = config.usize(["n_positions", "max_position_embeddings"])?;
    // An older name of n_positions.
    config.value("n_ctx");
    let inner = config.opt_usize("n_inner")?.unwrap_or(4 * hidden);
    let epsilon = config.positive("layer_norm_epsilon")?;
    // This setting keeps 16-bit products from overflowing; here products are f32 in any case.
    config.flag("reorder_and_upcast_attn")?;
    let by_layer = config.flag("scale_attn_by_inverse_layer_idx")?;
    let heads = Heads::dividing(config, ["n_head", "num_attention_heads"], hidden)?;
    let mut attention = AttentionConfig::plain(heads);
    if !config.flag("scale_attn_weights")? {
        attention.scale = 1.0;
    }
    let activation = b.activation(config, "activation_function")?;
    let prefix = b.prefix(&["transformer."], "wte.weight");
    let (ids, positions) = (b.ids("input_ids")?, b.ids("position_ids")?);
    let (embedding, shape) = (format!("{prefix}wte"), [vocabulary, hidden]);
    let tied = config.flag("tie_word_embeddings")?;
    let tables = b.vocabulary(tied, &format!("{embedding}.weight"), "lm_head.weight")?;
    let tokens = b.gather_of(&embedding, &tables.embedding, ids, shape)?;
    let places = b.gather(&format!("{prefix}wpe"), positions, [context, hidden])?;
    let mut x = b.add(&format!("{prefix}embeddings"), tokens, places)?;
    for layer in 0..layers {
        let name = |part: &str| format!("{prefix}h.{layer}.{part}");
        let normed = b.layer_norm(&name("ln_1"), x, hidden, epsilon)?;
        let mut qkv = [normed; 3];
        for (i, (slot, part)) in qkv.iter_mut().zip(["q", "k", "v"]).enumerate() {
            let names = (name(&format!("attn.{part}")), name("attn.c_attn"));
            *slot = conv1d(b, (&names.0, &names.1), normed, [hidden, hidden], (i * hidden, 3 * hidden))?;
        }
        let scale = if by_layer { attention.scale / (layer + 1) as f32 } else { attention.scale };
        let attended = b.cached_attention(&name("attn"), AttentionConfig { scale, ..attention }, qkv)?;
        let proj = name("attn.c_proj");
        let out = conv1d(b, (&proj, &proj), attended, [hidden, hidden], (0, hidden))?;
        x = b.add(&name("attn.residual"), x, out)?;
        let normed = b.layer_norm(&name("ln_2"), x, hidden, epsilon)?;
        let (up, down) = (name("mlp.c_fc"), name("mlp.c_proj"));
        let wide = conv1d(b, (&up, &up), normed, [inner, hidden], (0, inner))?;
        let wide = b.unary(&name("mlp.act"), activation, wide)?;
        let out = conv1d(b, (&down, &down), wide, [hidden, inner], (0, hidden))?;
        x = b.add(&name("mlp.residual"), x, out)?;
        b.layers.push(x);
    }
    let x = b.layer_norm(&format!("{prefix}ln_f"), x, hidden, epsilon)?;
    let logits = Logits { tensor: tables.head, shape, softcap: None };
    Ok(Family::decoder(x, logits, vocabulary, context))
}
