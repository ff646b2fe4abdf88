//! What the subcommands that take many texts share: where texts come from, and how they go through a model together.
//!
//! Read `embed.rs` and `rank.rs` for what is made of them.

use crate::asking;
use crate::common::{Decision, Target, check_tokens, decide_as, positive, progress_bar, tell, usage};
use crate::input;
use anyhow::{Context, Result};
use fanfold::Model;
use fanfold::generate::{Engine, EngineOptions, Text};
use fanfold::tensor::Tensor;
use fanfold::text::Tokenizer;
use std::path::PathBuf;
use std::time::Instant;

/// The most tokens of a call that takes several texts.
const TOKENS: usize = 2048;

/// Many texts at once.
#[derive(clap::Args, Clone)]
pub struct TextsArgs {
    /// A file that holds a text per line; `-` is standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Texts that go through the model together, at most; those of like length do
    #[arg(long, default_value_t = 32, value_parser = positive, value_name = "N")]
    batch: usize,
    /// Cut texts that are longer than the context, instead of refusing them
    #[arg(long)]
    truncate: bool,
}

impl TextsArgs {
    /// `given` and then the lines of the file, blank ones left out. Errors when there is none at all.
    pub fn read(&self, given: &[String]) -> Result<Vec<String>> {
        let mut texts = given.to_vec();
        if let Some(path) = &self.file {
            let all = input::text(path)?;
            texts.extend(all.lines().filter(|line| !line.trim().is_empty()).map(str::to_string));
        }
        if texts.is_empty() { Err(usage("no texts: give TEXT ... or -f FILE")) } else { Ok(texts) }
    }

    /// Chooses devices and a plan for an engine that takes as many texts at once as there are, up to `--batch`.
    pub fn decide(&self, model: &Model, target: &Target, texts: usize) -> Result<Decision> {
        let options = EngineOptions { batch: self.batch.min(texts), chunk: TOKENS, ..target.options(true) };
        decide_as(model, target, options)
    }

    /// The tokenizer, which cuts what the context does not hold if that is wanted.
    pub fn tokenizer(&self, tokenizer: Tokenizer, decision: &Decision) -> Result<Tokenizer> {
        if self.truncate { Ok(tokenizer.truncated(decision.limits.capacity)?) } else { Ok(tokenizer) }
    }
}

/// Refuses texts that cannot run before the weights are loaded, which may take minutes. Errors name the text.
pub fn check(texts: &[Text], decision: &Decision) -> Result<()> {
    let one = |(number, text): (usize, &Text)| {
        let way_out = if text.tokens.is_empty() { "" } else { ", which --truncate would cut" };
        check_tokens(&text.tokens, decision).with_context(|| format!("text {number}{way_out}"))
    };
    (1..).zip(texts).try_for_each(one)
}

/// Sends `texts` through `run`, with a progress bar, and says on stderr how fast that was.
pub fn timed(
    engine: &mut Engine,
    texts: &[Text],
    run: impl FnOnce(&mut Engine, &[Text], &mut dyn FnMut(usize)) -> fanfold::Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let bar = progress_bar(texts.len() as u64, "{bar:30} {pos}/{len} texts {eta}");
    let started = Instant::now();
    let results = run(engine, texts, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let results = results?;
    let time = started.elapsed();
    let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
    let warm = engine.pace().prefill.and(engine.pace().decode);
    let told = asking::timed(tokens, "token", time, warm.tokens_per_second());
    let rate = warm.sequences_per_second().map(|rate| format!(", {rate:.1} texts/s")).unwrap_or_default();
    tell(format_args!("{}, {told}{rate}", asking::counted(texts.len(), "text")));
    Ok(results)
}
