//! Reads a model folder as Hugging Face lays it out, safely: every file is validated before anything is sized by it.
//!
//! This module deliberately knows nothing of plans, ranks or devices: a weight is a [`View`] of a file tensor, and who
//! reads which part of it is decided elsewhere.
//! Read [`Folder`] next, then [`Weights`]; the format itself is in [`safetensors`].

mod bytes;
mod config;
mod demo;
mod folder;
mod index;
pub mod safetensors;
mod weights;

pub use config::{Config, MAX_SIZE, Names};
pub use demo::demo;
pub use folder::Folder;
pub use weights::{TensorId, View, Weights};
