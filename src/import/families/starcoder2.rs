//! StarCoder2: Llama's block with LayerNormalization, biases, an MLP without a gate, and a limited look back.
//!
//! It knows nothing but those differences. Read `decoder.rs` for the block.

use crate::error::Result;
use crate::import::builder::{Builder, Family};
use crate::import::decoder::{Decoder, Norm, plain_mlp};
use crate::ops::NormalizationKind;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let config = b.config;
    // What the first files also say, and hidden_act and norm_epsilon say otherwise: transformers reads those alone.
    ["activation_function", "layer_norm_epsilon"].iter().for_each(|field| _ = config.value(*field));
    // transformers would take 2, and not the query heads, where the field is missing.
    config.usize("num_key_value_heads")?;
    let mut decoder = Decoder::read(b, config)?;
    let epsilon = config.positive_or("norm_epsilon", 1e-5)?;
    decoder.norm = Norm { kind: NormalizationKind::Layer, epsilon, offset: 0.0 };
    let window = config.opt_usize("sliding_window")?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    decoder.tied = config.bool_or("tie_word_embeddings", true)?;
    let bias = config.bool_or("use_bias", true)?;
    decoder.biased_attention(bias);
    let sizes = [config.usize("intermediate_size")?, decoder.hidden];
    let activation = b.activation(config, "hidden_act", "gelu_pytorch_tanh")?;
    decoder.mlp = plain_mlp("mlp", ["c_fc", "c_proj"], sizes, activation, bias);
    decoder.build(b)
}
