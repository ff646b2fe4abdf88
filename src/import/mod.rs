//! Reads a model folder as Hugging Face lays it out, safely: every file is validated before anything is sized by it.
//!
//! This module deliberately knows nothing of plans, ranks or devices: a weight is a [`View`] of a tensor in a file,
//! and a rank decides later which part of it to read. Read `open.rs` next. [`Folder`] and [`Tensors`] are the layer
//! below it, and `families/` has a file for each family.

mod error;

pub use error::ImportError;

mod blocks;
mod check;
mod families;
pub(crate) mod files;
mod open;

pub use files::config::{Config, FieldNames, MAX_SIZE};
pub use files::demo::demo;
pub use files::folder::Folder;
pub use files::random::RandomTensors;
#[doc(hidden)]
pub use files::safetensors;
pub use files::stored::StoredWeights;
pub use files::tensors::{FileTensors, TensorId, Tensors, View};
pub use open::Head;
