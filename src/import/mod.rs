//! Opens model folders as Hugging Face lays them out. Files may come from anywhere, so each one is validated before any
//! size that it states is used.
//!
//! This module deliberately knows nothing of plans, ranks or devices: a weight refers to tensors in files through
//! [`View`]s, and a rank later reads only its own part. Read `open.rs` next; `files/` ([`Folder`], [`Tensors`]) is the
//! layer below it, and `families/` has a file for each model family.

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
