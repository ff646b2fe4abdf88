//! Qwen3-MoE: Qwen3 with a mixture of experts in most layers.
//!
//! It states only that difference. Read `decoder.rs` for the block, `mixture.rs` for the experts.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Block, Decoder, QkNorm};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::import::blocks::mixture::{ExpertNames, Mixture, by_layer};
use crate::import::files::config::Config;

/// The names of a mixture's tensors in Qwen's files.
const NAMES: ExpertNames = ExpertNames { mixture: "mlp", parts: ["gate_proj", "up_proj", "down_proj"] };

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let mut decoder = Decoder::read(b, config)?;
    let window = layers::window(config)?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    decoder.qk_norm = QkNorm::Heads;
    decoder.biased_attention(config.flag("attention_bias")?);
    let mixture = mixture(b)?;
    let sparse = sparse(config, decoder.layers.len())?;
    let mixed = Box::new(move |b: &mut Builder<'_>, block: &Block, x| mixture.build(b, block, x));
    decoder.mlp = by_layer(sparse, mixed, decoder.mlp);
    decoder.build(b)
}

/// The mixture of Qwen's families.
pub(crate) fn mixture(b: &Builder<'_>) -> Result<Mixture, ImportError> {
    let normalize = b.config.flag("norm_topk_prob")?;
    Mixture::read(b, b.config, NAMES, b.config.usize("moe_intermediate_size")?, normalize)
}

/// For each of `count` layers, whether its MLP is a mixture.
pub(crate) fn sparse(config: &Config, count: usize) -> Result<Vec<bool>, ImportError> {
    let step = config.usize("decoder_sparse_step")?;
    let dense = config.wholes("mlp_only_layers")?;
    if let Some(layer) = dense.iter().find(|layer| **layer >= count) {
        return Err(config.error("mlp_only_layers", format!("names layer {layer} of {count}")));
    }
    Ok((0..count).map(|layer| !dense.contains(&layer) && (layer + 1).is_multiple_of(step)).collect())
}
