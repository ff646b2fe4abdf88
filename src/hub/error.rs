//! The errors of finding a model by its name and of fetching it.
//!
//! It deliberately knows nothing of what is in a model. Read [`super::Cache`] for who returns these.

use crate::import::ImportError;
use std::path::PathBuf;

/// An error of a model's name, of the cache, or of a hub.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that cannot be a model's name.
    #[error("the model name {name:?} {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cache does not hold the model.
    #[error("{id} is not in the cache {}: fetch it first", cache.display())]
    NotCached {
        /// The name.
        id: String,
        /// The path of the cache.
        cache: PathBuf,
    },
    /// The hub has no such model, revision or file.
    #[error("{endpoint} has no {what}: check its spelling")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// `model OWNER/NAME`, `revision ..`, `file ..`.
        what: String,
    },
    /// The hub requires a token, or refuses the one given.
    #[error("{id}: {reason}")]
    Denied {
        /// The name.
        id: String,
        /// The reason, and what a person can do.
        reason: String,
    },
    /// The repository contains no weights that can be run.
    #[error("{id} holds no weights that fanfold reads (model.safetensors or its index){}", found.as_ref().map(|f| format!(", only {f}")).unwrap_or_default())]
    NoWeights {
        /// The name.
        id: String,
        /// A file of weights in another format.
        found: Option<String>,
    },
    /// The hub cannot be reached, or the connection broke.
    #[error(
        "{url}: {reason}. Is there a network? What was fetched is kept: fetching the model again goes on from there"
    )]
    Network {
        /// What was requested.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The hub's answer is not a valid one.
    #[error("{url}: {reason}")]
    Answer {
        /// What was requested.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The contents that arrived differ from what the hub stated about the file.
    #[error("{file}: {reason}. It was deleted: fetching the model again fetches it anew")]
    Damaged {
        /// The file.
        file: String,
        /// How it differs.
        reason: String,
    },
    /// A file in the cache cannot be written.
    #[error("{}: {reason}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's message, and what a person can do.
        reason: String,
    },
    /// The user cancelled.
    #[error("stopped; what was fetched is kept: fetching the model again goes on from there")]
    Stopped,
    /// An index of weights that was fetched cannot be read.
    #[error("{0}")]
    Import(ImportError),
}

impl From<ImportError> for HubError {
    fn from(error: ImportError) -> HubError {
        HubError::Import(error)
    }
}
