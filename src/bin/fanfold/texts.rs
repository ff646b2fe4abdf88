//! What the subcommands that take many texts share: where texts come from, and how they go through a model together.
//!
//! Read `embed.rs` and `rank.rs` for what is made of them.

use crate::common::{Decision, Target, check_tokens, decide_as, positive, progress_bar, usage};
use anyhow::Result;
use fanfold::Model;
use fanfold::generate::{EngineOptions, Text};
use fanfold::tensor::Tensor;
use fanfold::text::Tokenizer;
use std::io::Read;
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
            let mut all = String::new();
            let read = match path.to_str() {
                Some("-") => std::io::stdin().read_to_string(&mut all).map(|_| ()),
                _ => std::fs::read_to_string(path).map(|text| all = text),
            };
            read.map_err(|e| usage(format!("{}: {e}", path.display())))?;
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

/// Sends `texts` through `run`, with a progress bar, and says on stderr how fast that was.
pub fn timed(
    texts: &[Text],
    decision: &Decision,
    run: impl FnOnce(&[Text], &mut dyn FnMut(usize)) -> fanfold::Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    texts.iter().try_for_each(|text| check_tokens(&text.tokens, decision))?;
    let bar = progress_bar(texts.len() as u64, "{bar:30} {pos}/{len} texts {eta}");
    let started = Instant::now();
    let results = run(texts, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let results = results?;
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
    let (rate, token_rate) = (texts.len() as f64 / seconds, tokens as f64 / seconds);
    eprintln!("{} texts at {rate:.1}/s, {tokens} tokens at {token_rate:.1}/s", texts.len());
    Ok(results)
}
