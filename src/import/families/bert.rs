//! BERT, and the encoder block that RoBERTa and DistilBERT vary: learned positions, bidirectional attention, and a
//! normalisation after each residual.
//!
//! Its graph ends in hidden states; the folder or the caller says how they are pooled. Read `classifier.rs` for the
//! head that turns them into scores, and `roberta.rs` for how a variation is stated.

use crate::import::ImportError;
use crate::import::blocks::builder::{AttentionConfig, Builder, Heads};
use crate::import::blocks::classifier::{Classifier, HeadKind, head_kind};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::ops::UnaryFunction;

/// The properties in which the families that share this block differ.
pub(crate) struct Encoder {
    pub(crate) heads: Heads,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) vocabulary: usize,
    /// Rows of the position table.
    pub(crate) positions: usize,
    /// The row of a text's first position in that table.
    pub(crate) first_position: usize,
    /// Rows of the token type table, if there is one.
    pub(crate) types: Option<usize>,
    pub(crate) epsilon: f64,
    pub(crate) activation: UnaryFunction,
    pub(crate) names: TensorNames,
}

/// The names of tensors.
pub(crate) struct TensorNames {
    /// The prefix of all tensors of the encoder, unless the folder leaves it out.
    pub(crate) prefix: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) qkv: [&'static str; 3],
    pub(crate) attended: &'static str,
    pub(crate) attended_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) norm: &'static str,
}

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let settings = settings(b, "bert.")?;
    let head_kind = head_kind(b.config, "Bert")?;
    let (mut family, prefix) = encoder(b, &settings)?;
    if head_kind == HeadKind::Scores {
        let dense = format!("{prefix}pooler.dense");
        family.scores = Some(Classifier::new(b.config, &dense, UnaryFunction::Tanh, "classifier")?);
    }
    Ok(family)
}

/// Reads a configuration that uses BERT's names.
pub(crate) fn settings(b: &Builder<'_>, prefix: &'static str) -> Result<Encoder, ImportError> {
    let config = b.config;
    let kind = config.str_or("position_embedding_type", "absolute")?;
    if kind != "absolute" {
        return Err(config.error("position_embedding_type", format!("{kind:?}: only \"absolute\" is supported")));
    }
    for field in ["is_decoder", "add_cross_attention"] {
        if config.flag(field)? {
            return Err(config.error(field, "only encoders are supported"));
        }
    }
    let names = TensorNames {
        prefix,
        layers: "encoder.layer",
        qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
        attended: "attention.output.dense",
        attended_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        norm: "output.LayerNorm",
    };
    Ok(Encoder {
        heads: Heads::dividing(config, "num_attention_heads", config.usize("hidden_size")?)?,
        inner: config.usize("intermediate_size")?,
        layers: layers::count(config, "num_hidden_layers")?,
        vocabulary: config.usize("vocab_size")?,
        positions: config.usize("max_position_embeddings")?,
        first_position: 0,
        types: Some(config.usize("type_vocab_size")?),
        epsilon: config.positive("layer_norm_eps")?,
        activation: b.activation(config, "hidden_act")?,
        names,
    })
}

/// The graph up to the last hidden states, and the prefix of the encoder's tensors.
pub(crate) fn encoder(b: &mut Builder<'_>, encoder: &Encoder) -> Result<(Family, &'static str), ImportError> {
    let Encoder { heads, inner, layers, vocabulary, positions, first_position, types, epsilon, activation, .. } =
        *encoder;
    // The head that predicts masked tokens is not built, so it does not matter whether its weight is tied.
    b.config.value("tie_word_embeddings");
    let names = &encoder.names;
    let hidden = heads.heads * heads.head_dim;
    let Some(context) = positions.checked_sub(first_position).filter(|&context| context > 0) else {
        let reason = format!("{positions} rows, and the first position is in row {first_position}");
        return Err(b.config.error("max_position_embeddings", reason));
    };
    let prefix = b.prefix(&[names.prefix], "embeddings.word_embeddings.weight");
    let (ids, places) = (b.ids("input_ids")?, b.ids("position_ids")?);
    let segments = types.map(|_| b.ids("token_type_ids")).transpose()?;
    let embed = |part: &str| format!("{prefix}embeddings.{part}");
    let mut x = b.gather(&embed("word_embeddings"), ids, [vocabulary, hidden])?;
    if let (Some(types), Some(segments)) = (types, segments) {
        let typed = b.gather(&embed("token_type_embeddings"), segments, [types, hidden])?;
        x = b.add(&embed("typed"), x, typed)?;
    }
    let placed = b.gather(&embed("position_embeddings"), places, [positions, hidden])?;
    let x = b.add(&embed("placed"), x, placed)?;
    let mut x = b.layer_norm(&embed("LayerNorm"), x, hidden, epsilon)?;
    for layer in 0..layers {
        let name = |part: &str| format!("{prefix}{}.{layer}.{part}", names.layers);
        let mut qkv = [x; 3];
        for (slot, part) in qkv.iter_mut().zip(names.qkv) {
            *slot = b.linear(&name(part), x, [hidden, hidden], true)?;
        }
        let attended = b.attention(&name("attention.self"), AttentionConfig::plain(heads), false, qkv)?;
        let out = b.linear(&name(names.attended), attended, [hidden, hidden], true)?;
        let sum = b.add(&name("attention.residual"), out, x)?;
        x = b.layer_norm(&name(names.attended_norm), sum, hidden, epsilon)?;
        let wide = b.linear(&name(names.up), x, [inner, hidden], true)?;
        let wide = b.unary(&name("intermediate.act"), activation, wide)?;
        let out = b.linear(&name(names.down), wide, [hidden, inner], true)?;
        let sum = b.add(&name("output.residual"), out, x)?;
        x = b.layer_norm(&name(names.norm), sum, hidden, epsilon)?;
        b.layers.push(x);
    }
    let family = Family { first_position, token_types: types.unwrap_or(0), ..Family::encoder(x, vocabulary, context) };
    Ok((family, prefix))
}
