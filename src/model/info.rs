//! The facts about a model that its graph does not contain: sizes, end tokens, the meaning of its outputs.
//!
//! It is plain data. Read [`super::Model`] for what it belongs to.

use super::{Pooling, Scores, TextSettings};

/// The facts about a model beside its graph. Created by [`ModelInfo::decoder`] or [`ModelInfo::encoder`]; fields may
/// then be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The `model_type` of its configuration.
    pub family: String,
    /// The size of the vocabulary: token ids are below this.
    pub vocabulary: usize,
    /// The number of positions that the model was made for.
    pub context: usize,
    /// Ids that end a generation.
    pub end_tokens: Vec<u32>,
    /// The id of a text's first position, from which `position_ids` count.
    pub first_position: usize,
    /// The padding token of a model that does not count padding as a position (RoBERTa). Padding in a text gets the
    /// position before [`ModelInfo::first_position`], and the tokens after it continue to count as if it were absent.
    pub padding: Option<u32>,
    /// The number of token types, by which the two texts of a pair are told apart; 0 if the model has none.
    pub token_types: usize,
    /// Whether the model predicts tokens and has the output `logits`. Otherwise its output is `scores` or `hidden`.
    pub generates: bool,
    /// The tensor that is missing from a decoder's folder. Without it the model predicts no tokens and can only embed.
    pub missing_head: Option<String>,
    /// The meaning of its output `scores`, if it has one.
    pub scores: Option<Scores>,
    /// The names of the scores, in their order.
    pub labels: Vec<String>,
    /// How a text has to be prepared before the model reads it.
    pub texts: TextSettings,
    /// Whether pooled embeddings are scaled to length 1.
    pub normalize: bool,
    /// How many of a pooled embedding's first dimensions are kept after it is scaled. `None` keeps all.
    pub dimensions: Option<usize>,
    /// How a text's hidden states are pooled: as the caller asked, or else as the folder says.
    pub pooling: Pooling,
}

impl ModelInfo {
    /// The facts of a model that predicts tokens, with ids below `vocabulary`, and that was made for at most `context`
    /// positions.
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

    /// The facts of a model that turns a text of at most `context` tokens, with ids below `vocabulary`, into hidden
    /// states.
    pub fn encoder(vocabulary: usize, context: usize) -> ModelInfo {
        ModelInfo { generates: false, ..ModelInfo::decoder(vocabulary, context) }
    }
}
