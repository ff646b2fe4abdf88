//! GPT-NeoX and Pythia: attention and MLP side by side, heads turned in part, and one weight for queries, keys and
//! values, which lie in it head by head.
//!
//! It knows nothing but those differences. Read `decoder.rs` for the block, `interleaved.rs` for the weight.

use crate::error::Result;
use crate::import::builder::{Builder, Family, Heads};
use crate::import::decoder::{Decoder, Names, Norm, output, plain_mlp};
use crate::import::interleaved::projections;
use crate::import::rope::Rope;
use crate::ops::NormalizationKind;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    let config = b.config;
    let heads = Heads::dividing(config, "num_attention_heads", config.usize("hidden_size")?)?;
    let mut decoder = Decoder::turned(b, config, Rope::of_part_or(config, heads.head_dim, 0.25)?)?;
    let hidden = decoder.hidden;
    decoder.heads = heads;
    decoder.names = Names {
        prefix: b.prefix(&["gpt_neox."], "embed_in.weight").to_string(),
        embedding: "embed_in",
        layers: "layers",
        attention: "attention",
        mlp: "mlp",
        last_norm: "final_layer_norm",
        head: "embed_out",
    };
    let epsilon = config.positive_or("layer_norm_eps", 1e-5)?;
    decoder.norm = Norm { kind: NormalizationKind::Layer, epsilon, offset: 0.0 };
    decoder.parallel = config.bool_or("use_parallel_residual", true)?;
    let bias = config.bool_or("attention_bias", true)?;
    decoder.project = projections("attention", hidden, heads, bias);
    decoder.output = output("attention.dense", [hidden, heads.width()], bias);
    let sizes = [config.usize("intermediate_size")?, hidden];
    let activation = b.activation(config, "hidden_act", "gelu")?;
    decoder.mlp = plain_mlp("mlp", ["dense_h_to_4h", "dense_4h_to_h"], sizes, activation, true);
    decoder.build(b)
}
