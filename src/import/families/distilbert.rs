//! DistilBERT: BERT's block without token types, under names and settings of its own.
//!
//! It states only these differences. Read `bert.rs` for the block.

use super::bert::{Encoder, TensorNames, encoder};
use crate::import::ImportError;

use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::classifier::{Classifier, HeadKind, head_kind};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::ops::UnaryFunction;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    // Sinusoidal positions are only the initial values of the table before training; the files contain the table in
    // either case.
    config.flag("sinusoidal_pos_embds")?;
    let names = TensorNames {
        prefix: "distilbert.",
        layers: "transformer.layer",
        qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        attended: "attention.out_lin",
        attended_norm: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        norm: "output_layer_norm",
    };
    let settings = Encoder {
        heads: Heads::dividing(config, ["n_heads", "num_attention_heads"], config.usize(["dim", "hidden_size"])?)?,
        inner: config.usize("hidden_dim")?,
        layers: layers::count(config, ["n_layers", "num_hidden_layers"])?,
        vocabulary: config.usize("vocab_size")?,
        positions: config.usize("max_position_embeddings")?,
        first_position: 0,
        types: None,
        epsilon: 1e-12,
        activation: b.activation(config, "activation")?,
        names,
    };
    let head_kind = head_kind(config, "DistilBert")?;
    let (mut family, _) = encoder(b, &settings)?;
    if head_kind == HeadKind::Scores {
        family.scores = Some(Classifier::new(config, "pre_classifier", UnaryFunction::Relu, "classifier")?);
    }
    Ok(family)
}
