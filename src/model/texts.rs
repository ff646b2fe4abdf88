//! How a text is prepared before an embedding model or a classifier reads it: prompts, lengths, lower case.
//!
//! It is plain data: the import reads it from a folder, and `generate::Preparer` (feature `text`) applies it.

/// How a folder wants texts to be prepared, as sentence-transformers does it.
///
/// `generate::Preparer` (feature `text`) applies all of it. For a model that predicts tokens it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct TextSettings {
    /// The most tokens of a text, special ones included; longer texts are truncated. From `max_seq_length`, or else
    /// the tokenizer's `model_max_length`. `None` allows as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Whether truncation removes the beginning of a text and not its end: the tokenizer's `truncation_side`.
    pub cut_start: bool,
    /// Whether a text is first converted to lower case: `do_lower_case`.
    pub lowercase: bool,
    /// The prompts that can be put before a text, by name: `prompts`.
    pub prompts: Vec<(String, String)>,
    /// The name of the prompt that is put before a text unless the caller asks for another: `default_prompt_name`.
    pub default_prompt: Option<String>,
    /// Whether pooling leaves out the tokens of the prompt: `include_prompt` is false.
    pub skip_prompt: bool,
    /// Whether both texts of a pair get the same token type. So it is where `token_type_ids` is not among the
    /// tokenizer's `model_input_names`, or else not used by its `tokenizer_class`, and where the model knows one token
    /// type only, as RoBERTa does.
    pub one_segment: bool,
}

impl TextSettings {
    /// The settings of the tokenizer alone, without prompts, lengths and everything else that sentence-transformers
    /// adds.
    pub fn of_tokenizer(&self) -> TextSettings {
        TextSettings { cut_start: self.cut_start, one_segment: self.one_segment, ..TextSettings::default() }
    }
}
