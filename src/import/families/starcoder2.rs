//! StarCoder2: Llama's block with LayerNormalization, biases, an MLP without a gate, and a sliding window.
//!
//! It states only these differences. Read `decoder.rs` for the block.

use crate::import::ImportError;
use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::{Decoder, Settings, plain_mlp};
use crate::import::blocks::family::Family;
use crate::import::blocks::norm::Norm;
use crate::import::blocks::rope::Rope;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    // The first published files also have these two fields, which contradict hidden_act and norm_epsilon. transformers
    // reads only hidden_act and norm_epsilon.
    ["activation_function", "layer_norm_epsilon"].iter().for_each(|field| _ = config.value(*field));
    let (hidden, inner) = (config.usize("hidden_size")?, config.usize("intermediate_size")?);
    let heads = Heads::read(config, hidden)?;
    let (norm, rope) = (Norm::layer(config, "norm_epsilon")?, Rope::of_whole_heads(config, heads.head_dim)?);
    let activation = b.activation(config, "hidden_act")?;
    let mut decoder = Decoder::of(b, config, Settings { hidden, heads, inner, activation, norm, rope })?;
    let window = config.opt_usize("sliding_window")?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    let bias = config.flag("use_bias")?;
    decoder.biased_attention(bias);
    decoder.mlp = plain_mlp("mlp", ["c_fc", "c_proj"], [inner, hidden], activation, bias);
    decoder.build(b)
}
