//! The errors of texts: tokenizers, templates and the choice of tokens.
//!
//! It deliberately knows no engine. Read `tokenizer/`, `template/` and `sampling.rs` for who returns these.

use crate::weights::SourceError;
use std::path::PathBuf;

/// An error of a tokenizer, a template or a sampler.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The tokenizer cannot be read, or refuses a text.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The path of tokenizer.json.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer and the model do not belong together: the tokenizer has ids that the vocabulary lacks.
    #[error(
        "{}: has token ids up to {largest}, but the model's vocabulary ends before {vocabulary}: the tokenizer is not this model's", path.display()
    )]
    Vocabulary {
        /// The path of tokenizer.json.
        path: PathBuf,
        /// The tokenizer's largest id.
        largest: u32,
        /// The size of the model's vocabulary.
        vocabulary: usize,
    },
    /// A chat template has a syntax error, fails, raises an error, or does not end within its limits.
    #[error("{}: {reason}", path.display())]
    Template {
        /// The template's file.
        path: PathBuf,
        /// What is wrong; the template's own message if it raises one.
        reason: String,
    },
    /// The model has no chat template.
    #[error(
        "{}: has no chat template, so that it is not known how the model expects a conversation to be written: give one, or continue texts instead", path.display()
    )]
    NoTemplate {
        /// The model's folder.
        path: PathBuf,
    },
    /// The folder has no prompt of this name.
    #[error("the model's folder has no prompt named {name:?}: {known}")]
    Prompt {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A sampling setting is outside its range.
    #[error("{setting} {value} is outside {range}")]
    Sampling {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f32,
        /// What is allowed.
        range: &'static str,
    },
    /// The logits contain NaN or +infinity, or no token is possible.
    #[error("the logits hold no number to choose from ({0})")]
    Logits(&'static str),
    /// A file of the model cannot be read.
    #[error("{0}")]
    Source(SourceError),
}

impl From<SourceError> for TextError {
    fn from(error: SourceError) -> TextError {
        TextError::Source(error)
    }
}
