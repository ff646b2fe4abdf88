//! What is to be done to a text before an embedding model or a classifier reads it: prompts, lengths, lower case.
//!
//! It is data alone: `generate::Preparer` (feature `text`) does what it says, and the import reads it from a folder.

/// What a folder wants done to a text before the model reads it, as sentence-transformers does it.
///
/// `generate::Preparer` (feature `text`) does all of this; a model that predicts tokens has none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct TextSettings {
    /// A text of more tokens, special ones included, is cut to this many: `max_seq_length`, or else the tokenizer's
    /// `model_max_length`. Without one, a text is as long as the context allows.
    pub max_tokens: Option<usize>,
    /// Whether a text that is cut loses its beginning, and not its end: the tokenizer's `truncation_side`.
    pub cut_start: bool,
    /// Whether a text is turned into lower case first: `do_lower_case`.
    pub lowercase: bool,
    /// What may stand before every text, by name: `prompts`.
    pub prompts: Vec<(String, String)>,
    /// The name of the prompt that stands before every text unless another is asked for: `default_prompt_name`.
    pub default_prompt: Option<String>,
    /// Whether pooling leaves a prompt's tokens out: `include_prompt` is false.
    pub skip_prompt: bool,
    /// Whether the texts of a pair are not told apart: the tokenizer's `model_input_names`, or else its `tokenizer_class`,
    /// has no `token_type_ids`, or the model knows one token type only, as RoBERTa does.
    pub one_segment: bool,
}

impl TextSettings {
    /// What the tokenizer alone wants done: without prompts, lengths and all else that sentence-transformers adds.
    pub fn of_tokenizer(&self) -> TextSettings {
        TextSettings { cut_start: self.cut_start, one_segment: self.one_segment, ..TextSettings::default() }
    }
}
