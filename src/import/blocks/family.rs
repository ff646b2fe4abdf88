//! [`Family`], the result of a family's file: the graph's last hidden states, the heads that may follow, and facts.
//!
//! It deliberately knows no family by name. Read `import/open.rs` for the choice among the heads.

use crate::graph::ValueId;
use crate::import::blocks::builder::Logits;
use crate::import::blocks::classifier::Classifier;

/// The result of a family's file, which has built the graph up to the last hidden states.
pub(crate) struct Family {
    /// The last hidden states, `[batch, seq, hidden]`.
    pub(crate) hidden: ValueId,
    /// The head that turns them into logits, for a decoder.
    pub(crate) logits: Option<Logits>,
    /// The head that turns them into a score per label, for a classifier.
    pub(crate) scores: Option<Classifier>,
    /// The size of the vocabulary: token ids are below it.
    pub(crate) vocabulary: usize,
    /// The longest context that the model was trained for.
    pub(crate) context: usize,
    /// The position id of a text's first token: 0, or above the padding id in RoBERTa.
    pub(crate) first_position: usize,
    /// The padding token of a model that gives it no position of its own (RoBERTa).
    pub(crate) padding: Option<u32>,
    /// How many token types (segments) there are; 0 for a model without them.
    pub(crate) token_types: usize,
    /// End tokens stated in a nested text configuration (`text_config`), when there is one.
    pub(crate) end_tokens: Vec<i64>,
}

impl Family {
    /// A model that predicts tokens with the head `logits`.
    pub(crate) fn decoder(hidden: ValueId, logits: Logits, vocabulary: usize, context: usize) -> Family {
        Family { logits: Some(logits), ..Family::encoder(hidden, vocabulary, context) }
    }

    /// A model that ends in hidden states.
    pub(crate) fn encoder(hidden: ValueId, vocabulary: usize, context: usize) -> Family {
        Family {
            hidden,
            logits: None,
            scores: None,
            vocabulary,
            context,
            first_position: 0,
            padding: None,
            token_types: 0,
            end_tokens: Vec::new(),
        }
    }
}
