//! The errors of reading a model folder. They name the file, and where it applies the byte.
//!
//! It deliberately knows no plan and no device. Read [`super::Folder`] for who returns these.

use crate::graph::GraphError;
use crate::message::list;
use crate::shape::display_shape;
use crate::tensor::TensorError;
use crate::weights::SourceError;
use std::path::PathBuf;

/// A model folder.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file cannot be opened or read.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file has content that is not valid.
    #[error("{}: {reason} (at byte {offset})", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A tensor in a file is not valid.
    #[error("{}: tensor {tensor:?}: {reason} (at byte {offset})", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The byte offset of its data in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A folder contains no weights that can be read safely.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what a person can do.
        reason: String,
    },
    /// A field of a configuration is missing or has a wrong value.
    #[error("{}: {field}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The model family or one of its settings is not supported.
    #[error("{what} {name:?} is not supported; supported: {supported}")]
    Unsupported {
        /// `model_type`, `rope type`, ...
        what: &'static str,
        /// The value that the folder has.
        name: String,
        /// What is supported, comma-separated.
        supported: String,
    },
    /// An element of a weight is NaN or infinite.
    #[error("{}: tensor {tensor:?} holds {value} at {}: the file is damaged, or its training diverged", path.display(), display_shape(index))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The element's index, one number per dimension.
        index: Vec<usize>,
        /// NaN or an infinity.
        value: f32,
    },
    /// A configuration has fields that no code read and that may change what the model computes. The error lists all
    /// of them.
    #[error(
        "{}: these fields are not understood, and may change what the model computes:{}\nthose that you know to change \
         nothing can be ignored: {names}",
        path.display(),
        list(fields)
    )]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// One line per field, with its value.
        fields: Vec<String>,
        /// The fields' names, comma-separated.
        names: String,
    },
    /// The configuration and the tensors disagree. The error lists all disagreements.
    #[error("{}: the tensors do not match config.json:{}", path.display(), list(mismatches))]
    Mismatch {
        /// The folder.
        path: PathBuf,
        /// One line per tensor.
        mismatches: Vec<String>,
    },
    /// A family's graph cannot be built from the settings.
    #[error("{0}")]
    Graph(GraphError),
    /// A tensor in the files cannot be read in the way that was asked for.
    #[error("{0}")]
    Data(TensorError),
}

impl From<GraphError> for ImportError {
    fn from(error: GraphError) -> ImportError {
        ImportError::Graph(error)
    }
}

impl From<TensorError> for ImportError {
    fn from(error: TensorError) -> ImportError {
        ImportError::Data(error)
    }
}

impl From<ImportError> for SourceError {
    fn from(error: ImportError) -> SourceError {
        match error {
            ImportError::Data(cause) => cause.into(),
            error => SourceError::other(error),
        }
    }
}
