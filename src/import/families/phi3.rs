//! Phi-3: Llama with one weight for queries, keys and values, one for both inputs of its MLP, and heads that may be
//! rotated in part.
//!
//! Views separate the fused weights here, so that sharding rules and plans see one weight per projection. Read
//! `decoder.rs` for the block, `scaling.rs` for longrope.

use crate::import::ImportError;
use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::Decoder;
use crate::import::blocks::family::Family;
use crate::import::blocks::rope::Rope;
use crate::import::blocks::scaling::Scaling;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let heads = Heads::read(config, config.usize("hidden_size")?)?;
    let rope = Rope::of_part(config, heads.head_dim)?;
    if !matches!(rope.scaling, Scaling::None | Scaling::Long { .. }) {
        // transformers refuses the other kinds, and reads "yarn" as longrope in this family only.
        return Err(config.error(["rope_scaling", "rope_parameters"], "only longrope is supported in this family"));
    }
    let mut decoder = Decoder::turned(b, config, rope)?;
    // Files state this field even if no scaling uses it. Reading it keeps it from being reported as unread.
    config.usize("original_max_position_embeddings")?;
    let window = config.opt_usize("sliding_window")?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    let (hidden, inner) = (decoder.hidden, config.usize("intermediate_size")?);
    let all = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
    decoder.project = Box::new(move |b, block, part, x| {
        let (name, fused) = (block.name(&format!("self_attn.{part}_proj")), block.name("self_attn.qkv_proj"));
        b.linear_rows(&name, (&fused, [all, hidden]), part.rows(heads), x)
    });
    let activation = b.activation(config, "hidden_act")?;
    decoder.mlp = Box::new(move |b, block, x| {
        let name = |part: &str| block.name(&format!("mlp.{part}"));
        let (fused, all) = (name("gate_up_proj"), [2 * inner, hidden]);
        let gate = b.linear_rows(&name("gate_proj"), (&fused, all), 0..inner, x)?;
        let gate = b.unary(&name("act"), activation, gate)?;
        let up = b.linear_rows(&name("up_proj"), (&fused, all), inner..2 * inner, x)?;
        let gated = b.mul(&name("gated"), gate, up)?;
        b.linear(&name("down_proj"), gated, [hidden, inner], false)
    });
    decoder.build(b)
}
