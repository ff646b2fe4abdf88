//! The engines: each loads the model, computes the logits of the prompt and of some tokens behind it, and is then timed, round by round.
//!
//! A file per engine. Nothing here compares them. Read `race.rs` for who takes part.

mod candle;
mod fanfold;
mod llama;

use crate::Options;
use ::fanfold::format::Format;
use anyhow::{Result, bail};
use rounds::{Hello, answer};
use std::path::Path;
use std::time::{Duration, Instant};

/// The names of all engines. `fanfold` runs on one device with all threads, `fanfold-q8_0` too, with weights of 8 bits; `fanfold-core`
/// on one device with a single thread, and `fanfold-pair` on two such devices.
pub const ALL: [&str; 7] =
    ["fanfold", "llama-vulkan", "llama-cpu", "candle", "fanfold-q8_0", "fanfold-core", "fanfold-pair"];

/// How many tokens behind the prompt are decoded for comparison.
const COMPARED: usize = 8;

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

/// Computes what is compared, which is also the warm-up, and then one prompt and the tokens behind it for each round.
///
/// The rates of a round are tokens per second of the prompt, and of decoding.
fn contend(engine: &mut dyn Engine, what: String, options: &Options, vocabulary: usize) -> Result<()> {
    let (prompt, rest) = tokens(options, vocabulary);
    let mut outputs = vec![engine.feed(&prompt)?];
    for token in rest.iter().take(COMPARED) {
        outputs.push(engine.feed(std::slice::from_ref(token))?);
    }
    answer(Hello { what, outputs }, || {
        engine.reset()?;
        let rate = |count: usize, taken: Duration| count as f64 / taken.as_secs_f64();
        let started = Instant::now();
        engine.feed(&prompt)?;
        let prefill = rate(prompt.len(), started.elapsed());
        let started = Instant::now();
        for token in &rest {
            engine.feed(std::slice::from_ref(token))?;
        }
        Ok(vec![prefill, rate(rest.len(), started.elapsed())])
    })
}

/// Runs the engine of this name on the model in `folder`, as a contender.
pub fn run(engine: &str, folder: &Path, options: &Options) -> Result<()> {
    match engine {
        "fanfold" | "fanfold-core" => fanfold::run(folder, options, 1, None),
        "fanfold-q8_0" => fanfold::run(folder, options, 1, Some(Format::Q8_0)),
        "fanfold-pair" => fanfold::run(folder, options, 2, None),
        "llama-vulkan" => llama::run(folder, options, true),
        "llama-cpu" => llama::run(folder, options, false),
        "candle" => candle::run(folder, options),
        _ => bail!("{engine}: unknown; known are {}", ALL.join(", ")),
    }
}
