//! What a family's file hands back: the graph's last hidden states, the heads that may follow, and facts of the model.
//!
//! It deliberately knows no family by name. Read `import/open.rs` for who chooses among the heads.

use crate::graph::ValueId;
use crate::import::blocks::builder::Logits;
use crate::import::blocks::classifier::Classifier;

/// What a family's builder leaves for the head.
pub(crate) struct Family {
    /// The last hidden states, `[batch, seq, hidden]`.
    pub(crate) hidden: ValueId,
    /// What turns them into logits, if there is such a thing.
    pub(crate) logits: Option<Logits>,
    /// The head that turns them into scores, if there is one.
    pub(crate) scores: Option<Classifier>,
    /// Token ids are below this.
    pub(crate) vocabulary: usize,
    /// Positions it was made for.
    pub(crate) context: usize,
    /// The id of a text's first position.
    pub(crate) first_position: usize,
    /// The padding token, where positions pass over it when it stands in a text.
    pub(crate) padding: Option<u32>,
    /// Token types are below this; 0 where it has none.
    pub(crate) token_types: usize,
    /// Ids that end a generation by the text model's own configuration, where that is a part of the whole one.
    pub(crate) end_tokens: Vec<i64>,
}

impl Family {
    /// One that predicts tokens by `logits`.
    pub(crate) fn decoder(hidden: ValueId, logits: Logits, vocabulary: usize, context: usize) -> Family {
        Family { logits: Some(logits), ..Family::encoder(hidden, vocabulary, context) }
    }

    /// One that ends in hidden states.
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
