//! Reads a model folder as Hugging Face lays it out, safely: every file is validated before anything is sized by it.
//!
//! This module deliberately knows nothing of plans, ranks or devices: a weight is a [`View`] of a file tensor, and who
//! reads which part of it is decided elsewhere.
//! Read [`Model`] next; [`Folder`] and [`Tensors`] are what lies below it, and `families/` has a file for each
//! family.

mod builder;
mod bytes;
mod check;
mod classifier;
mod config;
mod decoder;
mod defaults;
mod demo;
mod families;
mod folder;
mod index;
mod inert;
mod interleaved;
mod joined;
mod layers;
mod mixture;
mod model;
mod random;
mod rope;
pub mod safetensors;
mod scaling;
mod sentence;
mod special;
mod tensors;

pub use classifier::{Probability, ScoreActivation, Scores};
pub use config::{Config, FieldNames, MAX_SIZE};
pub use demo::demo;
pub use folder::Folder;
#[cfg(feature = "hub")]
pub(crate) use index::Index;
pub use model::{Head, Model, ModelInfo, Pooling, STATES};
pub use random::RandomTensors;
pub(crate) use sentence::TRANSFORMER_SETTINGS;
pub use sentence::TextSettings;
pub use tensors::{FileTensors, TensorId, Tensors, View};
