//! GPT-NeoX and Pythia: attention and MLP in parallel, heads rotated in part, and one weight for queries, keys and
//! values, which are interleaved in it head by head.
//!
//! It states only these differences. Read `decoder.rs` for the block, `interleaved.rs` for the weight.

use crate::import::ImportError;
use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::{Decoder, Settings, TensorNames, output, plain_mlp};
use crate::import::blocks::family::Family;
use crate::import::blocks::interleaved::projections;
use crate::import::blocks::norm::Norm;
use crate::import::blocks::rope::Rope;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let (hidden, inner) = (config.usize("hidden_size")?, config.usize("intermediate_size")?);
    let heads = Heads::dividing(config, "num_attention_heads", hidden)?;
    let (norm, activation) = (Norm::layer(config, "layer_norm_eps")?, b.activation(config, "hidden_act")?);
    let rope = Rope::named(config, ["rotary_emb_base", "rotary_pct"], heads.head_dim)?;
    // Some releases also wrote both under the names of other families; no release reads them there.
    config.agrees("rope_theta", rope.theta);
    config.agrees("partial_rotary_factor", rope.part);
    let mut decoder = Decoder::of(b, config, Settings { hidden, heads, inner, activation, norm, rope })?;
    decoder.names = TensorNames {
        prefix: b.prefix(&["gpt_neox."], "embed_in.weight").to_string(),
        embedding: "embed_in",
        layers: "layers",
        attention: "attention",
        mlp: "mlp",
        last_norm: "final_layer_norm",
        head: "embed_out",
    };
    decoder.parallel = config.flag("use_parallel_residual")?;
    let bias = config.flag("attention_bias")?;
    decoder.project = projections("attention", hidden, heads, bias);
    decoder.output = output("attention.dense", [hidden, heads.width()], bias);
    decoder.mlp = plain_mlp("mlp", ["dense_h_to_4h", "dense_4h_to_h"], [inner, hidden], activation, true);
    decoder.build(b)
}
