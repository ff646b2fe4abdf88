//! `fanfold perplexity`: measures how well a model predicts a text.
//!
//! The text is encoded as a whole, as transformers does: tokens that the tokenizer adds around a text stand at its ends, not in
//! every window. Nothing is scored here. Read [`fanfold::measure::perplexity`] for how.

use crate::arguments::numbers::positive;
use crate::arguments::target::Target;
use crate::engine::decision::decide;
use crate::engine::load::open;
use crate::engine::models::{generator, tokenizer};
use crate::engine::summary::timed;
use crate::files::input;
use crate::terminal::print::{say, tell};
use crate::terminal::progress::progress_bar;
use crate::usage::usage;
use anyhow::Result;
use fanfold::measure::{Perplexity, perplexity, windows};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
#[command(
    after_help = "The text is scored in windows of -c tokens, or of what the model holds if that is less. Without \
--stride, windows
do not overlap, and all tokens but each window's first are scored. With a smaller one, a window scores the tokens that
the one before it did not hold, each with at least CONTEXT - STRIDE tokens before it.

Example:
  fanfold perplexity MODEL -f text.txt -c 512 --devices 0,1"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The text
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    prompt: Option<String>,
    /// A file that holds the text; - is standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Tokens between the beginnings of two windows [default: a window]
    #[arg(long, value_parser = positive, value_name = "N")]
    stride: Option<usize>,
    /// As JSON, window by window
    #[arg(long)]
    json: bool,
}

/// The text to score.
fn text(args: &Args) -> Result<String> {
    match (&args.prompt, &args.file) {
        (Some(text), _) => Ok(text.clone()),
        (None, Some(file)) => input::text(file),
        (None, None) => Err(usage("no text to score: give -f FILE, -f - or -p TEXT")),
    }
}

/// The result as a line of text.
fn line(found: &Perplexity) -> String {
    let (nats, error, perplexity) = (found.nats_per_token(), found.standard_error(), found.perplexity());
    format!("{nats:.4} ± {error:.4} nats per token, perplexity {perplexity:.3} ± {:.3}", perplexity * error)
}

pub fn main(args: &Args) -> Result<()> {
    let text = text(args)?;
    let model = generator(&args.target)?;
    let ids = tokenizer(&model)?.encode(&text, true)?;
    let window = args.target.context.min(model.info().context);
    let stride = args.stride.unwrap_or(window);
    if stride > window {
        return Err(usage(format!("--stride {stride} leaves tokens out between windows of --context {window}")));
    }
    let count = windows(ids.len(), window, stride).count();
    if count == 0 {
        let (tokens, reason) = (ids.len(), "there is none with another before it");
        return Err(usage(format!("nothing to score: {tokens} tokens in windows of --context {window}: {reason}")));
    }
    let decision = decide(&model, &args.target, true)?;
    let mut engine = open(&model, &decision)?;
    let bar = progress_bar(count as u64, "scoring {bar:30} {pos}/{len} windows, {eta} left, {msg}");
    let (started, quiet) = (Instant::now(), !std::io::stderr().is_terminal());
    let found = perplexity(&mut engine, &ids, window, stride, |found| {
        let done = found.windows.len();
        bar.set_position(done as u64);
        bar.set_message(format!("{:.4} nats per token", found.nats_per_token()));
        // Where stderr is not a terminal there is no bar: ten lines tell how far it is.
        if quiet && done.is_multiple_of(count.div_ceil(10)) && done < count {
            tell(format_args!("{done} of {count} windows: {}", line(found)));
        }
    });
    bar.finish_and_clear();
    let found = found?;
    let (time, pace) = (started.elapsed(), engine.pace());
    let rate = pace.prefill.and(pace.decode).tokens_per_second();
    if args.json {
        let mut json = json!({
            "nats_per_token": found.nats_per_token(),
            "standard_error": found.standard_error(),
            "perplexity": found.perplexity(),
            "context": window,
            "stride": stride,
            "seconds": time.as_secs_f64(),
        });
        if let (Value::Object(json), Value::Object(more)) = (&mut json, serde_json::to_value(&found)?) {
            json.extend(more);
        }
        say(serde_json::to_string_pretty(&json)?)?;
    } else {
        say(format_args!("{}, {} tokens scored in {count} windows of {window}", line(&found), found.tokens))?;
    }
    tell(timed(ids.len(), "token", time, rate));
    Ok(())
}
