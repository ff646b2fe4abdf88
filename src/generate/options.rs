//! How an engine is opened, and what its program needs, counted before any device is opened.
//!
//! It deliberately opens nothing. Read `engine.rs` for who does.

use super::error::GenerateError;
use crate::kernel::Numerics;
use crate::model::{Model, ModelInfo};
use crate::plan::Plan;
use crate::program::{Program, Room, lower};
use crate::shape::{Env, Limits};
use std::time::Duration;

/// How an [`Engine`](super::Engine) is opened.
///
/// ```
/// let options = fanfold::EngineOptions::default().context(512).batch(4);
/// assert_eq!((options.context, options.chunk), (512, 256));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Positions that the KV cache holds, which is the longest prompt plus its answer: 2048, and never more than the model was
    /// made for.
    pub context: usize,
    /// Most tokens of one call: 256. A longer prompt goes in several calls. Chunks are shorter where a device cannot hold an
    /// activation of so many tokens in one piece; [`Engine::limits`](super::Engine::limits) tells. A model that embeds takes a
    /// text in one call, however long.
    pub chunk: usize,
    /// Most sequences of one call, texts embedded or prompts answered at once: 1.
    pub batch: usize,
    /// Whether the logits of every position of a prompt are returned, and not the last position's alone: false.
    pub all_logits: bool,
    /// How long a wait may last in which no rank makes progress: 30 seconds.
    pub deadline: Duration,
    /// The order in which all devices add up sums; `None`, the default, leaves it to each. Devices of one adapter have one order
    /// anyway.
    pub numerics: Option<Numerics>,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            context: 2048,
            chunk: 256,
            batch: 1,
            all_logits: false,
            deadline: Duration::from_secs(30),
            numerics: None,
        }
    }
}

impl EngineOptions {
    /// The same, with this [`context`](EngineOptions#structfield.context).
    pub fn context(self, context: usize) -> EngineOptions {
        EngineOptions { context, ..self }
    }

    /// The same, with this [`chunk`](EngineOptions#structfield.chunk).
    pub fn chunk(self, chunk: usize) -> EngineOptions {
        EngineOptions { chunk, ..self }
    }

    /// The same, with this [`batch`](EngineOptions#structfield.batch).
    pub fn batch(self, batch: usize) -> EngineOptions {
        EngineOptions { batch, ..self }
    }

    /// The same, with or without [`all_logits`](EngineOptions#structfield.all_logits).
    pub fn all_logits(self, all_logits: bool) -> EngineOptions {
        EngineOptions { all_logits, ..self }
    }

    /// The same, with this [`deadline`](EngineOptions#structfield.deadline).
    pub fn deadline(self, deadline: Duration) -> EngineOptions {
        EngineOptions { deadline, ..self }
    }

    /// The same, with this order of [`sums`](EngineOptions#structfield.numerics).
    pub fn numerics(self, numerics: Option<Numerics>) -> EngineOptions {
        EngineOptions { numerics, ..self }
    }

    /// The largest call on a model: what predicts tokens takes a text in chunks; what embeds it, in one call, since a
    /// pooled chunk is not a part of the pooled text.
    #[doc(hidden)]
    pub fn limits(&self, info: &ModelInfo) -> Limits {
        let capacity = self.context.min(info.context).max(1);
        let batch = self.batch.max(1);
        let seq = if info.generates { self.chunk.clamp(1, capacity) } else { capacity };
        let tokens = if batch > 1 { seq.max(self.chunk).max(batch) } else { seq };
        let each = Env { batch, seq, keep: if self.all_logits { seq } else { 1 }, past: 0, capacity };
        Limits { each, tokens }
    }
}

/// The program of `model` under `plan`, and the largest call it will be given on devices of which `rooms` tells.
///
/// Where the logits of a whole chunk, or another activation, would be larger than the largest tensor of a device, chunks
/// are shorter: a prompt then goes in more of them, and gives the same. What the program needs of each device can be
/// counted from these two before any device is opened. Errors when the plan is for another model.
#[doc(hidden)]
pub fn prepare(
    model: &Model,
    plan: &Plan,
    options: &EngineOptions,
    rooms: &[Room],
) -> Result<(Program, Limits), GenerateError> {
    let program = lower(model.graph(), plan)?.with_numerics(options.numerics);
    let of = |chunk: usize| EngineOptions { chunk, ..*options }.limits(model.info());
    let fits = |chunk: usize| {
        let limits = of(chunk);
        program.ranks.iter().zip(rooms).all(|(rank, room)| rank.activations_fit(&limits, room))
    };
    // What embeds takes a text in one call, whatever a chunk is.
    if !model.info().generates || fits(options.chunk) {
        return Ok((program, of(options.chunk)));
    }
    let (mut fitting, mut failing) = (1, options.chunk.max(1));
    while failing - fitting > 1 {
        let middle = fitting + (failing - fitting) / 2;
        if fits(middle) { fitting = middle } else { failing = middle }
    }
    // Kernels take rows in blocks of eight.
    let chunk = if fitting > CHUNK_BLOCK { fitting - fitting % CHUNK_BLOCK } else { fitting };
    let limits = of(chunk);
    Ok((program, limits))
}

/// Chunks that are made shorter have a multiple of this many tokens.
const CHUNK_BLOCK: usize = 8;
