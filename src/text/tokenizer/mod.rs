//! Tokenizers: a tokenizer.json is read and checked, texts become token ids, and ids become text, token by token.
//!
//! A tokenizer.json comes from an untrusted author. Every part of it is checked before it is given to the crate
//! `tokenizers`, and every step has a budget. Nothing here knows a model. Read `ids.rs` first, then `file.rs`.

mod budget;
mod charsmap;
mod detokenizer;
mod file;
mod guard;
mod ids;
mod pattern;
mod pipeline;
mod vocabulary;

pub use detokenizer::TextStream;
pub use ids::Tokenizer;

#[cfg(test)]
pub(in crate::text) use ids::tests;
