//! Qwen2-MoE: Qwen2 with a mixture of experts in most layers, and beside it an expert that every token shares.
//!
//! It states only these differences. Read `qwen3_moe.rs` for what both have in common, `mixture.rs` for the experts.

use super::qwen3_moe::{mixture, sparse};
use crate::import::ImportError;

use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Block, Decoder, gated_mlp, projections};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::import::blocks::mixture::by_layer;
use crate::ops::UnaryFunction;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let mut decoder = Decoder::read(b, config)?;
    let (window, last) = (layers::window(config)?, config.whole("max_window_layers")?);
    let on = config.flag("use_sliding_window")?;
    let slides = |layer: usize| on && layer.is_multiple_of(2) && layer < last;
    layers::slide(config, &mut decoder.layers, window, slides)?;
    decoder.project = projections(decoder.hidden, decoder.heads, config.flag("qkv_bias")?);
    let (mixture, sparse) = (mixture(b)?, sparse(config, decoder.layers.len())?);
    let (hidden, inner) = (decoder.hidden, config.usize("shared_expert_intermediate_size")?);
    let shared = gated_mlp("mlp.shared_expert", [inner, hidden], mixture.activation, false);
    let mixed = Box::new(move |b: &mut Builder<'_>, block: &Block, x| {
        let routed = mixture.build(b, block, x)?;
        let gate = b.linear(&block.name("mlp.shared_expert_gate"), x, [1, hidden], false)?;
        let gate = b.unary(&block.name("mlp.shared_expert_gate.sigmoid"), UnaryFunction::Sigmoid, gate)?;
        let shared = shared(b, block, x)?;
        let shared = b.mul(&block.name("mlp.shared_expert.opened"), shared, gate)?;
        b.add(&block.name("mlp.sum"), routed, shared)
    });
    decoder.mlp = by_layer(sparse, mixed, decoder.mlp);
    decoder.build(b)
}
