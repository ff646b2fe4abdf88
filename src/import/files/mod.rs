//! Finds, checks, maps and reads the files of a model folder, before any graph is built.
//!
//! These modules deliberately know no graph and build no model. `folder.rs` finds files; `bytes.rs`, `safetensors.rs`
//! and `index.rs` check them; `config.rs` reads settings; `tensors.rs` reads parts of tensors. Read `folder.rs` first.

pub(crate) mod bytes;
pub(crate) mod config;
pub(crate) mod defaults;
pub(crate) mod demo;
pub(crate) mod folder;
pub(crate) mod index;
pub(crate) mod inert;
pub(crate) mod joined;
pub(crate) mod modules;
pub(crate) mod random;
pub mod safetensors;
pub(crate) mod sentence;
pub(crate) mod special;
pub(crate) mod stored;
pub(crate) mod tensors;
