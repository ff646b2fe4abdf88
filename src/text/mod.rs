//! Text in and out of a model: a tokenizer, a chat template, the streaming of text, and the choice of the next token.
//!
//! It deliberately knows no model, session or device: it turns text into token ids, ids into text, and logits into the
//! id of a token. Read [`Sampler`] first, which needs no tokenizer, then [`Tokenizer`] and [`TextStream`] (feature
//! `text`).

#[cfg(feature = "text")]
mod control;
mod error;
mod finish;
mod logprobs;
#[cfg(feature = "text")]
mod output;
mod penalty;
mod sampling;
#[cfg(feature = "text")]
mod template;
#[cfg(feature = "text")]
mod tokenizer;

pub use error::TextError;
pub use finish::FinishReason;
pub use logprobs::Scores;
#[cfg(feature = "text")]
pub use output::Output;
pub use penalty::Penalties;
pub use sampling::{Sampler, Sampling};
#[cfg(feature = "text")]
pub use template::{ChatTemplate, Message};
#[cfg(feature = "text")]
pub use tokenizer::{TextStream, Tokenizer};
