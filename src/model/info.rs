//! The facts of a model that its graph does not tell: sizes, end tokens, what its outputs mean.
//!
//! It is data alone. Read [`super::Model`] for what it is a part of.

use super::{Pooling, Scores, TextSettings};

/// What is known of a model beside its graph. Made by [`ModelInfo::decoder`] or [`ModelInfo::encoder`]; fields may be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// `model_type` of its configuration.
    pub family: String,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// Positions it was made for.
    pub context: usize,
    /// Ids that end a generation.
    pub end_tokens: Vec<u32>,
    /// The id of a text's first position: what `position_ids` count from.
    pub first_position: usize,
    /// The padding token of a model that gives it no position of its own: where it stands in a text, its position is the
    /// one before [`ModelInfo::first_position`], and the tokens after it go on counting as if it were not there.
    pub padding: Option<u32>,
    /// Token types that it tells apart, as the two texts of a pair are marked; 0 where it has none.
    pub token_types: usize,
    /// Whether it predicts tokens: its output is `logits`. Otherwise it is `scores` or `hidden`.
    pub generates: bool,
    /// The tensor that a decoder's folder lacks, so that it predicts nothing and can only embed.
    pub missing_head: Option<String>,
    /// What its output `scores` is, where it has one.
    pub scores: Option<Scores>,
    /// The names of the scores, in their order.
    pub labels: Vec<String>,
    /// What is to be done to a text before the model reads it.
    pub texts: TextSettings,
    /// Whether pooled embeddings are scaled to length 1.
    pub normalize: bool,
    /// How many of a pooled embedding's first dimensions are kept, after it is scaled; all where it is `None`.
    pub dimensions: Option<usize>,
    /// What pools a text's hidden states: as asked for, or else as the folder says.
    pub pooling: Pooling,
}

impl ModelInfo {
    /// A model that predicts tokens below `vocabulary` and was made for at most `context` positions.
    pub fn decoder(vocabulary: usize, context: usize) -> ModelInfo {
        ModelInfo {
            family: "graph".to_string(),
            vocabulary,
            context,
            end_tokens: Vec::new(),
            first_position: 0,
            padding: None,
            token_types: 0,
            generates: true,
            missing_head: None,
            scores: None,
            labels: Vec::new(),
            texts: TextSettings::default(),
            normalize: false,
            dimensions: None,
            pooling: Pooling::None,
        }
    }

    /// A model that turns a text of tokens below `vocabulary`, at most `context` of them, into hidden states.
    pub fn encoder(vocabulary: usize, context: usize) -> ModelInfo {
        ModelInfo { generates: false, ..ModelInfo::decoder(vocabulary, context) }
    }
}
