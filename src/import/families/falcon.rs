//! Falcon: attention and MLP side by side, one weight for queries, keys and values, and one key and value for all heads
//! or, in the newer architecture, for each group of them.
//!
//! It states only these differences. Read `decoder.rs` for the block, `interleaved.rs` for the weight.

use crate::import::ImportError;
use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::{Decoder, Norms, Settings, TensorNames, output, plain_mlp};
use crate::import::blocks::family::Family;
use crate::import::blocks::interleaved::projections;
use crate::import::blocks::norm::Norm;
use crate::import::blocks::rope::Rope;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    if config.flag("alibi")? {
        return Err(config.error("alibi", "only rotary positions are supported"));
    }
    let hidden = config.usize(["hidden_size", "n_embed"])?;
    let mut heads = Heads::dividing(config, "num_attention_heads", hidden)?;
    let newer = config.flag("new_decoder_architecture")?;
    let told = config.opt_usize("num_kv_heads")?.unwrap_or(heads.heads);
    let shared = config.flag("multi_query")?;
    heads.kv_heads = match (newer, shared) {
        (true, _) => told,
        (false, true) => 1,
        (false, false) => heads.heads,
    };
    if !heads.heads.is_multiple_of(heads.kv_heads) {
        return Err(config.error("num_kv_heads", format!("{told} does not divide {} query heads", heads.heads)));
    }
    let inner = config.opt_usize("ffn_hidden_size")?.unwrap_or(4 * hidden);
    let (norm, activation) = (Norm::layer(config, "layer_norm_epsilon")?, b.activation(config, "activation")?);
    let rope = Rope::of_whole_heads(config, heads.head_dim)?;
    let mut decoder = Decoder::of(b, config, Settings { hidden, heads, inner, activation, norm, rope })?;
    decoder.names = TensorNames {
        prefix: b.prefix(&["transformer."], "word_embeddings.weight").to_string(),
        embedding: "word_embeddings",
        layers: "h",
        attention: "self_attention",
        mlp: "mlp",
        last_norm: "ln_f",
        head: "lm_head",
    };
    decoder.parallel = config.flag("parallel_attn")?;
    let beside = |before_attention, before_mlp| Norms {
        before_attention: Some(before_attention),
        after_attention: None,
        before_mlp,
        after_mlp: None,
    };
    let norms = config.opt_usize("num_ln_in_parallel_attn")?.unwrap_or(if newer { 2 } else { 1 });
    decoder.norms = match (decoder.parallel, newer, norms) {
        (true, true, 2) => beside("ln_attn", Some("ln_mlp")),
        (true, _, 1) => beside("input_layernorm", None),
        (true, ..) => {
            let reason = format!("{norms} norms: there is one, or two in the newer architecture");
            return Err(config.error("num_ln_in_parallel_attn", reason));
        }
        (false, false, _) => beside("input_layernorm", Some("post_attention_layernorm")),
        (false, true, _) => {
            return Err(config.error("parallel_attn", "the newer architecture has no other than parallel attention"));
        }
    };
    let bias = config.flag("bias")?;
    decoder.project = projections("self_attention", hidden, heads, bias);
    decoder.output = output("self_attention.dense", [hidden, hidden], bias);
    decoder.mlp = plain_mlp("mlp", ["dense_h_to_4h", "dense_4h_to_h"], [inner, hidden], activation, bias);
    decoder.build(b)
}
