//! Text in and out of a model: a tokenizer, a chat template, the streaming of text, and the choice of the next token.
//!
//! It deliberately knows no model, session or device: it turns text into token ids, ids into text, and logits into an
//! id. Read [`Sampler`] first, which needs no tokenizer, then [`Tokenizer`] and [`TextStream`] (feature `text`).

#[cfg(feature = "text")]
mod error;

pub use error::TextError;

mod budget;
#[cfg(feature = "text")]
mod charsmap;
#[cfg(feature = "text")]
mod control;
#[cfg(feature = "text")]
mod detokenizer;
#[cfg(feature = "text")]
mod file;
mod finish;
#[cfg(feature = "text")]
mod guard;
mod logprobs;
#[cfg(feature = "text")]
mod output;
#[cfg(feature = "text")]
mod pattern;
mod penalty;
#[cfg(feature = "text")]
mod pipeline;
mod sampling;
#[cfg(feature = "text")]
mod template;
#[cfg(feature = "text")]
mod tokenizer;
#[cfg(feature = "text")]
mod vocabulary;

#[cfg(feature = "text")]
pub use detokenizer::TextStream;
pub use finish::FinishReason;
pub use logprobs::Scores;
#[cfg(feature = "text")]
pub use output::Output;
pub use penalty::Penalties;
pub use sampling::{Sampler, Sampling};
#[cfg(feature = "text")]
pub use template::{ChatTemplate, Message};
#[cfg(feature = "text")]
pub use tokenizer::Tokenizer;
