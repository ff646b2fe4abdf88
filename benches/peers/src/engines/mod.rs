//! The engines: each loads the model, computes the logits behind the prompt, and is timed once, in a process of its own.
//!
//! A file per engine. Nothing here compares them. Read `race.rs` for who does.

mod candle;
mod fanfold;
mod llama;

use crate::Options;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// The names of all engines. `fanfold` runs on one device with all threads, `fanfold-core` on one with a single thread, and
/// `fanfold-pair` on two such devices.
pub const ALL: [&str; 6] = ["fanfold", "llama-vulkan", "llama-cpu", "candle", "fanfold-core", "fanfold-pair"];

/// What one process found.
#[derive(Serialize, Deserialize)]
pub struct Run {
    /// The engine's version, and what it ran on, in its own words.
    pub what: String,
    /// The logits behind the prompt.
    pub logits: Vec<f32>,
    /// Tokens per second of the prompt.
    pub prefill: f64,
    /// Tokens per second of decoding.
    pub decode: f64,
}

/// The tokens of the prompt, and those that are fed one by one behind it.
fn tokens(options: &Options, vocabulary: usize) -> (Vec<u32>, Vec<u32>) {
    let token = |i: usize| ((i * 7919 + 13) % vocabulary) as u32;
    ((0..options.prompt).map(token).collect(), (options.prompt..options.prompt + options.decode).map(token).collect())
}

/// An engine that holds a model.
trait Engine {
    /// Forgets all tokens.
    fn reset(&mut self) -> Result<()>;

    /// Computes `tokens` after those that it holds, in one call; returns the logits of the last.
    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>>;
}

/// Times one prompt and the tokens behind it, after a warm-up of both.
fn timed(engine: &mut dyn Engine, what: String, options: &Options, vocabulary: usize) -> Result<Run> {
    let (prompt, rest) = tokens(options, vocabulary);
    let logits = engine.feed(&prompt)?;
    engine.feed(&rest[..1])?;
    engine.reset()?;
    let rate = |count: usize, taken: Duration| count as f64 / taken.as_secs_f64();
    let started = Instant::now();
    engine.feed(&prompt)?;
    let prefill = rate(prompt.len(), started.elapsed());
    let started = Instant::now();
    for token in &rest {
        engine.feed(std::slice::from_ref(token))?;
    }
    Ok(Run { what, logits, prefill, decode: rate(rest.len(), started.elapsed()) })
}

/// Runs the engine of this name on the model in `folder`.
pub fn run(engine: &str, folder: &Path, options: &Options) -> Result<Run> {
    match engine {
        "fanfold" | "fanfold-core" => fanfold::run(folder, options, 1),
        "fanfold-pair" => fanfold::run(folder, options, 2),
        "llama-vulkan" => llama::run(folder, options, true),
        "llama-cpu" => llama::run(folder, options, false),
        "candle" => candle::run(folder, options),
        _ => bail!("{engine}: unknown; known are {}", ALL.join(", ")),
    }
}
