//! What can go wrong when tokens go through an engine.
//!
//! It deliberately knows no text. Read [`super::Engine`] for who returns these.

use crate::program::ProgramError;
use crate::session::SessionError;
use crate::tensor::TensorError;
use crate::text::TextError;

/// What can be done about tokens that do not fit a context.
fn context_advice(tokens: usize, capacity: usize, limit: Option<usize>) -> String {
    match limit {
        None => String::new(),
        Some(limit) if tokens <= limit => {
            format!(": use a larger context, up to the {limit} that the model was made for, or shorten the text")
        }
        Some(limit) if limit == capacity => ", and the model was made for no more: shorten the text".to_string(),
        Some(limit) => format!(", and the model was made for no more than {limit}: shorten the text"),
    }
}

/// Tokens that cannot go through an engine, or an engine that cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The tokens do not fit the context.
    #[error("{tokens} tokens do not fit the context of {capacity} positions{}", context_advice(*tokens, *capacity, *limit))]
    Context {
        /// Tokens in all.
        tokens: usize,
        /// The context's size.
        capacity: usize,
        /// The largest context that the model was made for, where that is known.
        limit: Option<usize>,
    },
    /// A token id is outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The id.
        token: u32,
        /// The vocabulary's size.
        vocabulary: usize,
    },
    /// An output is no finite number.
    #[error(
        "{output}: {value} came out of node {node} first, on rank {rank} ({device}); check whether the weights hold such values"
    )]
    NotFinite {
        /// The output.
        output: String,
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The first node that made such a value.
        node: String,
        /// The value.
        value: f32,
    },
    /// The prompt holds no token.
    #[error("the prompt holds no token")]
    EmptyPrompt,
    /// The model cannot do what was asked.
    #[error("the model {model} {reason}")]
    Model {
        /// The model.
        model: String,
        /// Why not.
        reason: String,
    },
    /// The queue of a [`Service`](super::Service) is full.
    #[error("{waiting} requests wait already: try again later")]
    Busy {
        /// Requests that wait.
        waiting: usize,
    },
    /// A [`Service`](super::Service) was closed, or its engine has panicked.
    #[error("the engine's service has ended: start a new one")]
    Closed,
    /// The system gives no thread.
    #[error("the engine has no thread: {reason}")]
    Thread {
        /// The system's words.
        reason: String,
    },
    /// The plan does not become a program, or the program does not fit the devices.
    #[error("{0}")]
    Program(ProgramError),
    /// The session failed.
    #[error("{0}")]
    Session(SessionError),
    /// A token cannot be chosen, or a text cannot be prepared.
    #[error("{0}")]
    Text(TextError),
    /// A tensor is not what it should be.
    #[error("{0}")]
    Tensor(TensorError),
}

impl From<ProgramError> for GenerateError {
    fn from(error: ProgramError) -> GenerateError {
        GenerateError::Program(error)
    }
}

impl From<SessionError> for GenerateError {
    fn from(error: SessionError) -> GenerateError {
        GenerateError::Session(error)
    }
}

impl From<TextError> for GenerateError {
    fn from(error: TextError) -> GenerateError {
        GenerateError::Text(error)
    }
}

impl From<TensorError> for GenerateError {
    fn from(error: TensorError) -> GenerateError {
        GenerateError::Tensor(error)
    }
}
