//! Many texts through one engine, for the commands `embed`, `rank` and `classify`.
//!
//! It reads texts, checks them and runs them in batches, and knows no command's result. Read `commands/embed.rs` for one.

use super::decision::{Decision, check_tokens, decide_as};
use super::summary;
use crate::arguments::target::Target;
use crate::arguments::texts::TextsArgs;
use crate::files::input;
use crate::terminal::print::tell;
use crate::terminal::progress::progress_bar;
use crate::usage::usage;
use anyhow::{Context as _, Result};
use fanfold::generate::{Engine, GenerateError, Prepared, Preparer, Prompt, Text};
use fanfold::model::{Model, TextSettings};
use fanfold::tensor::Tensor;
use fanfold::text::Tokenizer;
use std::ops::Deref;
use std::time::Instant;

/// The largest number of tokens in one call that takes several texts.
const TOKENS: usize = 2048;

/// The texts, and where each of them is from.
pub struct Texts {
    /// All texts, those of the command line first.
    all: Vec<String>,
    /// How many of them stand on the command line. The others are lines of the file.
    given: usize,
    /// The file's name, for messages.
    file: String,
}

impl Deref for Texts {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.all
    }
}

impl Texts {
    /// Where the text of this number is from, for messages.
    fn place(&self, text: usize) -> String {
        match text.checked_sub(self.given) {
            Some(line) => format!("{}, line {}", self.file, line + 1),
            None => format!("text {} on the command line", text + 1),
        }
    }

    /// The tokens of each text as `prepare` makes them, in the order of the texts. Says on stderr how many texts were cut.
    ///
    /// Errors, before any weight is loaded, when a text holds no token or does not fit the context. The error names the text.
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

/// The texts that `given` holds, and then the lines of the file that `args` name. Errors when there is none at all.
pub fn read(args: &TextsArgs, given: &[String]) -> Result<Texts> {
    let mut texts = Texts { all: given.to_vec(), given: given.len(), file: String::new() };
    if let Some(path) = &args.file {
        let lines = input::text(path)?;
        texts.file = match path.to_str() {
            Some("-") => "standard input".to_string(),
            _ => path.display().to_string(),
        };
        texts.all.extend(lines.lines().map(str::to_string));
    }
    if texts.is_empty() { Err(usage("no texts: give TEXT ... or -f FILE")) } else { Ok(texts) }
}

/// Chooses devices and a plan for an engine that takes all of `texts` texts in one call, or `--batch` of them if that is less.
pub fn decide(args: &TextsArgs, model: &Model, target: &Target, texts: usize) -> Result<Decision> {
    let options = target.options(true).batch(args.batch.min(texts)).chunk(TOKENS);
    decide_as(model, target, options)
}

/// What turns texts into tokens as `settings` say. With `--truncate` it cuts a text at the length of the context.
pub fn preparer(
    args: &TextsArgs,
    settings: &TextSettings,
    tokenizer: Tokenizer,
    prompt: Prompt<'_>,
    decision: &Decision,
) -> Result<Preparer> {
    let max = args.truncate.then_some(decision.limits.capacity);
    Ok(Preparer::new(settings, tokenizer, prompt, max)?)
}

/// Runs `texts` through `engine` by `run`, with a progress bar, and says on stderr how fast that was.
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
    // A single text needs one call, and that call compiles kernels: its time would say nothing about speed.
    if texts.len() > 1 {
        let time = started.elapsed();
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        let warm = engine.pace().prefill.and(engine.pace().decode);
        let told = summary::timed(tokens, "token", time, warm.tokens_per_second());
        let rate = warm.sequences_per_second().map(|rate| format!(", {rate:.1} texts/s")).unwrap_or_default();
        tell(format_args!("{}, {told}{rate}", summary::counted(texts.len(), "text")));
    }
    Ok(results)
}
