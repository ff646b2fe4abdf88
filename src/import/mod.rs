//! Reads a model folder as Hugging Face lays it out, safely: every file is validated before anything is sized by it.
//!
//! This module deliberately knows nothing of plans, ranks or devices: a weight is a [`View`] of a file tensor, and who
//! reads which part of it is decided elsewhere.
//! Read [`Model`] next; [`Folder`] and [`Tensors`] are what lies below it, and each family has a file of its own.

mod bert;
mod builder;
mod bytes;
mod check;
mod classifier;
mod config;
mod decoder;
mod demo;
mod distilbert;
mod falcon;
mod folder;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod index;
mod inert;
mod interleaved;
mod joined;
mod layers;
mod llama;
mod mistral;
mod mixtral;
mod mixture;
mod model;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod random;
mod roberta;
mod rope;
pub mod safetensors;
mod scaling;
mod sentence;
mod special;
mod starcoder2;
mod tensors;

pub use classifier::{ScoreActivation, Scores};
pub use config::{Config, MAX_SIZE, Names};
pub use demo::demo;
pub use folder::Folder;
#[cfg(feature = "hub")]
pub(crate) use index::Index;
pub use model::{Head, Model, ModelInfo, Pooling};
pub use random::RandomTensors;
pub use tensors::{FileTensors, TensorId, Tensors, View};
