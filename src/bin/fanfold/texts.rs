//! What the subcommands that take many texts share: where texts come from, and how they go through a model together.
//!
//! Read `embed.rs`, `rank.rs` and `classify.rs` for what is made of them.

use crate::asking;
use crate::common::{Decision, Target, check_tokens, decide_as, positive, progress_bar, tell, usage};
use crate::input;
use anyhow::{Context as _, Result};
use fanfold::Model;
use fanfold::generate::{Engine, GenerateError, Prepared, Preparer, Prompt, Text};
use fanfold::model::TextSettings;
use fanfold::tensor::Tensor;
use fanfold::text::Tokenizer;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Instant;

/// The most tokens of a call that takes several texts.
const TOKENS: usize = 2048;

/// Many texts at once.
#[derive(clap::Args, Clone)]
pub struct TextsArgs {
    /// A file that holds a text per line, an empty line being an empty text; `-` is standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Texts that go through the model together, at most; those of like length do
    #[arg(long, default_value_t = 32, value_parser = positive, value_name = "N")]
    batch: usize,
    /// Cut texts that are longer than the context, instead of refusing them
    #[arg(long)]
    truncate: bool,
}

/// What stands before every text.
#[derive(clap::Args, Clone)]
pub struct PromptArgs {
    /// Put the folder's prompt of this name before every text [default: its default prompt, if it has one]
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,
    /// Put this before every text, instead of the folder's default prompt; an empty one for none
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

impl PromptArgs {
    fn prompt(&self) -> Prompt<'_> {
        match (&self.prompt, &self.prompt_name) {
            (Some(text), _) => Prompt::Text(text),
            (None, Some(name)) => Prompt::Named(name),
            (None, None) => Prompt::Default,
        }
    }

    /// What makes texts ready for `model`, which `decision` opens.
    pub fn preparer(
        &self,
        model: &Model,
        tokenizer: Tokenizer,
        texts: &TextsArgs,
        decision: &Decision,
    ) -> Result<Preparer> {
        texts.preparer(&model.info().texts, tokenizer, self.prompt(), decision)
    }
}

/// The texts, and where each of them is from.
pub struct Texts {
    all: Vec<String>,
    /// How many of them stand on the command line; the others are lines.
    given: usize,
    file: String,
}

impl Deref for Texts {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.all
    }
}

impl Texts {
    /// Where a text is from, for messages.
    fn place(&self, text: usize) -> String {
        match text.checked_sub(self.given) {
            Some(line) => format!("{}, line {}", self.file, line + 1),
            None => format!("text {} on the command line", text + 1),
        }
    }

    /// Each text as `prepare` makes it ready, in their order. Says on stderr how many were cut.
    ///
    /// Errors before anything is loaded, and names the text, when one holds no token at all or does not fit the context.
    pub fn prepared(
        &self,
        decision: &Decision,
        prepare: impl Fn(usize, &str) -> Result<Prepared, GenerateError>,
    ) -> Result<Vec<Text>> {
        let (mut prepared, mut cut) = (Vec::new(), Vec::new());
        for (number, text) in self.all.iter().enumerate() {
            let Prepared { text, cut: shorter, .. } = prepare(number, text)?;
            let way_out = if text.tokens.is_empty() { "" } else { ", which --truncate would cut" };
            check_tokens(&text.tokens, decision).with_context(|| format!("{}{way_out}", self.place(number)))?;
            if shorter {
                cut.push(text.tokens.len());
            }
            prepared.push(text);
        }
        if let Some(max) = cut.iter().max() {
            let (cut, all) = (cut.len(), self.all.len());
            tell(format_args!("{cut} of {all} texts are longer than {max} tokens, and were cut"));
        }
        Ok(prepared)
    }
}

impl TextsArgs {
    /// `given` and then the lines of the file. Errors when there is none at all.
    pub fn read(&self, given: &[String]) -> Result<Texts> {
        let mut texts = Texts { all: given.to_vec(), given: given.len(), file: String::new() };
        if let Some(path) = &self.file {
            let lines = input::text(path)?;
            texts.file = match path.to_str() {
                Some("-") => "standard input".to_string(),
                _ => path.display().to_string(),
            };
            texts.all.extend(lines.lines().map(str::to_string));
        }
        if texts.is_empty() { Err(usage("no texts: give TEXT ... or -f FILE")) } else { Ok(texts) }
    }

    /// Chooses devices and a plan for an engine that takes as many texts at once as there are, up to `--batch`.
    pub fn decide(&self, model: &Model, target: &Target, texts: usize) -> Result<Decision> {
        let options = target.options(true).batch(self.batch.min(texts)).chunk(TOKENS);
        decide_as(model, target, options)
    }

    /// What makes texts ready as `settings` say, and cuts what the context does not hold if that is wanted.
    pub fn preparer(
        &self,
        settings: &TextSettings,
        tokenizer: Tokenizer,
        prompt: Prompt<'_>,
        decision: &Decision,
    ) -> Result<Preparer> {
        let max = self.truncate.then_some(decision.limits.capacity);
        Ok(Preparer::new(settings, tokenizer, prompt, max)?)
    }
}

/// Sends `texts` through `run`, with a progress bar, and says on stderr how fast that was.
pub fn timed(
    engine: &mut Engine,
    texts: &[Text],
    run: impl FnOnce(&mut Engine, &[Text], &mut dyn FnMut(usize)) -> Result<Vec<Tensor>, GenerateError>,
) -> Result<Vec<Tensor>> {
    let bar = progress_bar(texts.len() as u64, "{bar:30} {pos}/{len} texts {eta}");
    let started = Instant::now();
    let results = run(engine, texts, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let results = results?;
    // Of a single text nothing is told: its first call is the one that prepares everything.
    if texts.len() > 1 {
        let time = started.elapsed();
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        let warm = engine.pace().prefill.and(engine.pace().decode);
        let told = asking::timed(tokens, "token", time, warm.tokens_per_second());
        let rate = warm.sequences_per_second().map(|rate| format!(", {rate:.1} texts/s")).unwrap_or_default();
        tell(format_args!("{}, {told}{rate}", asking::counted(texts.len(), "text")));
    }
    Ok(results)
}
