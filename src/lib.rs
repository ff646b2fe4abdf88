//! fanfold runs one model across whatever GPUs a person has: it splits the wide layers over several devices of any
//! vendor and any size, exchanges activations between them, and proves that the sharded answer is the single-device
//! answer.
//!
//! # One walk through the crate
//!
//! ```text
//! model folder ── import ──▶ Graph + Weights (in open files)
//! Graph + Strategy + ratios ── plan ──▶ Plan      (or a Plan read from JSON, edited by a person)
//! Graph + Plan ── lower ──▶ Program               (one plain list of instructions per rank, printable)
//! Program + Weights + Devices ── open ──▶ Session (one thread per rank) ── run ──▶ outputs
//! Session + tokens ──▶ Engine ── generate, embed, verify, measure
//! ```
//!
//! No step reaches back. After lowering, nobody asks what was cut where; before a session, nobody holds a device.
//!
//! | to | read |
//! |---|---|
//! | run a model | [`Model`], [`mod@plan`], [`Engine`] |
//! | store its matrices in fewer bits | [`Model::with_weights`], [`mod@format`] |
//! | find a model by its name | [`hub`] |
//! | find and open GPUs | [`device::gpu::adapters`], [`device::select`] |
//! | turn text into tokens and back | [`text`] |
//! | hold a conversation | `chat::Chat` (feature `text`) |
//! | measure speed, and how well a text is predicted | [`measure`] |
//! | prove an answer, test a device | [`proof`] |
//! | split a graph of your own | [`Graph`](graph::Graph), [`lower`](program::lower()), [`Session`](session::Session) |
//! | see how an op may be split | [`sharding`], then [`ops`] |
//!
//! # In ten lines
//!
//! The embedded demo model, split 5 : 2 : 1 over three devices. [`HostDevice`](device::host::HostDevice) is the
//! reference evaluation, so this runs anywhere; [`device::select`] opens GPUs.
//!
//! ```
//! use fanfold::device::{Device, host::HostDevice};
//! use fanfold::{Engine, EngineOptions, GenerateOptions, Model, Sampler, Sampling, Strategy, plan::plan};
//! use std::sync::Arc;
//!
//! # fn main() -> fanfold::Result<()> {
//! let model = Arc::new(Model::demo()?); // or Model::open("path/to/a/folder")
//! let plan = plan(model.graph(), Strategy::Tensor, &[5.0, 2.0, 1.0])?;
//! let devices = (0..3).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect();
//! let options = EngineOptions::default().context(64);
//! let mut engine = Engine::open(model, &plan, devices, options, Arc::new(|_bytes| ()))?;
//! let greedy = Sampler::new(Sampling::greedy())?;
//! let length = GenerateOptions::new(8).ignore_end();
//! let tokens: Result<Vec<u32>, _> = engine.generate(&[50, 47, 45], greedy, &length)?.collect();
//! assert_eq!(tokens?.len(), 8);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `text` adds the tokenizer and the chat template of a model folder, and conversations. `hub` adds the fetching of
//! models by name. `cli`, the default, is the `fanfold` program; a library that embeds fanfold turns it off and pulls
//! in neither a tokenizer nor a command line.

// The library prints nothing: it returns values and errors. `println!` would also panic when the stream is closed.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[cfg(feature = "text")]
pub mod chat;
pub mod comm;
pub mod device;
pub mod error;
pub mod format;
pub mod generate;
pub mod graph;
#[doc(hidden)]
pub mod hub;
pub mod import;
pub mod kernel;
pub mod measure;
#[doc(hidden)]
pub mod message;
pub mod model;
pub mod ops;
pub mod plan;
pub mod program;
pub mod proof;
pub mod random;
#[doc(hidden)]
pub mod report;
pub mod session;
pub mod shape;
pub mod sharding;
pub mod tensor;
pub mod text;
mod trace;
pub mod wait;
pub mod weights;

pub use error::{Error, Result};
pub use generate::{Engine, EngineOptions, GenerateOptions};
pub use model::Model;
pub use plan::{Plan, Strategy};
pub use text::{Sampler, Sampling};

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
