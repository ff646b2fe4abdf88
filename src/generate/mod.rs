//! Tokens: a model on its devices, prompts in, tokens or embeddings out.
//!
//! Nothing here knows text: ids in, ids out. Read `engine.rs` first, then `tokens.rs` for one answer, `answers.rs` for several
//! at once, `encode.rs` for embeddings and scores, and `service.rs` for callers that are asynchronous; [`crate::text`] for the tokenizer and the sampler.

mod answers;
mod call;
mod cancel;
mod encode;
mod engine;
mod error;
mod held;
mod options;
mod pace;
#[cfg(feature = "text")]
mod preparer;
mod service;
mod tokens;

pub use answers::Answers;
pub use call::Text;
pub use cancel::Cancel;
pub use engine::Engine;
pub use error::GenerateError;
#[cfg(feature = "text")]
pub(crate) use held::Held;
pub use options::{EngineOptions, prepare};
pub use pace::{Pace, Rate};
#[cfg(feature = "text")]
pub use preparer::{Prepared, Preparer, Prompt};
pub use service::{Event, Service, TokenStream};
pub use tokens::{GenerateOptions, Tokens};
