//! [`ImportError`]: the errors of opening and reading a model folder. Most name the file and, for content that is not
//! valid, the byte.
//!
//! This module deliberately knows no plan and no device. Read [`super::Folder`] next, whose methods return these
//! errors.

use crate::graph::GraphError;
use crate::message::list;
use crate::shape::display_shape;
use crate::tensor::TensorError;
use crate::weights::SourceError;
use std::path::PathBuf;

/// Why a model folder cannot be opened, or one of its files or weights cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file cannot be opened or read.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's message, or another reason, such as that the path is not a regular file.
        reason: String,
    },
    /// A file has content that is not valid.
    #[error("{}: {reason} (at byte {offset})", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The byte offset of the fault in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A tensor in a file is not valid, or an index assigns a tensor to a file that does not hold it.
    #[error("{}: tensor {tensor:?}: {reason} (at byte {offset})", path.display())]
    Tensor {
        /// The path of the file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The byte offset in the file: of the tensor's elements, or of the fault in the header or the index.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A folder cannot be opened as a model: it does not exist, it lacks a file, or its weights are not safetensors.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The path of the folder.
        path: PathBuf,
        /// What is wrong, and where possible what a person can do about it.
        reason: String,
    },
    /// A field of a configuration is missing or has a wrong value.
    #[error("{}: {field}: {reason}", path.display())]
    Config {
        /// The path of the file.
        path: PathBuf,
        /// The name of the field, with the names of the objects that it is nested in: `rope_parameters.factor`.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The folder has a setting with a value that is not supported, such as the model family.
    #[error("{what} {name:?} is not supported; supported: {supported}")]
    Unsupported {
        /// The kind of setting: `model_type`, `rope type`, ...
        what: &'static str,
        /// The value that the folder states.
        name: String,
        /// The supported values, comma-separated.
        supported: String,
    },
    /// An element of a weight is NaN or infinite.
    #[error("{}: tensor {tensor:?} holds {value} at {}: the file is damaged, or its training diverged", path.display(), display_shape(index))]
    NotFinite {
        /// The path of the file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The index of the element, one number per dimension of the tensor.
        index: Vec<usize>,
        /// The element's value: NaN or an infinity.
        value: f32,
    },
    /// A configuration has fields that fanfold does not read and that may change what the model computes. The error
    /// lists all of them.
    #[error(
        "{}: these fields are not understood, and may change what the model computes:{}\nthose that you know to change \
         nothing can be ignored: {names}",
        path.display(),
        list(fields)
    )]
    NotUnderstood {
        /// The path of the file.
        path: PathBuf,
        /// One line per field: its name, its value and, for some fields, an explanation.
        fields: Vec<String>,
        /// The names of the fields, comma-separated, in the form in which a person names fields to have them ignored.
        names: String,
    },
    /// Tensors are missing, or have other shapes than the configuration requires. The error lists all of them.
    #[error("{}: the tensors do not match config.json:{}", path.display(), list(mismatches))]
    Mismatch {
        /// The path of the folder.
        path: PathBuf,
        /// One line per tensor: its name, and what was expected and found.
        mismatches: Vec<String>,
    },
    /// The settings are valid one by one, but the family's graph cannot be built from them.
    #[error("{0}")]
    Graph(GraphError),
    /// A region asked for is not inside its tensor, or there is not enough memory for it.
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
