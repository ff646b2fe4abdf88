//! `fanfold run`: continue a text.

use crate::common::{
    Target, check_tokens, count, decide, open, open_model, stop_on_interrupt, tokenizer, usage, within, write_tensor,
};
use anyhow::Result;
use fanfold::import::Head;
use fanfold::text::{Sampler, Sampling};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold run MODEL -p \"Once upon a time\" -n 100 --devices 0,1 --ratios 3,2")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The text to continue
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["file", "stdin"])]
    prompt: Option<String>,
    /// A file that holds the text
    #[arg(short, long, conflicts_with = "stdin")]
    file: Option<PathBuf>,
    /// `-` reads the text from standard input
    #[arg(value_parser = ["-"], value_name = "-", hide_possible_values = true)]
    stdin: Option<String>,
    /// Tokens to generate at most
    #[arg(short = 'n', long = "tokens", default_value_t = 64, value_parser = count, value_name = "N")]
    tokens: usize,
    /// 0 always takes the most likely token
    #[arg(long = "temp", default_value_t = 0.8, value_parser = within(0.0, 100.0), value_name = "T")]
    temperature: f32,
    /// Choose among this many of the most likely tokens; 0: all
    #[arg(long, default_value_t = 40, value_parser = count, value_name = "N")]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_parser = within(0.0, 1.0), value_name = "P")]
    top_p: f32,
    /// Start of the random numbers; drawn and told if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Go on after an end token
    #[arg(long)]
    ignore_eos: bool,
    /// Write the logits of the prompt, [tokens, vocabulary] in f32
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
}

/// The text that the arguments name.
fn text(args: &Args) -> Result<String> {
    match (&args.prompt, &args.file, &args.stdin) {
        (Some(prompt), _, _) => Ok(prompt.clone()),
        (None, Some(file), _) => std::fs::read_to_string(file).map_err(|e| usage(format!("{}: {e}", file.display()))),
        (None, None, Some(_)) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| usage(format!("standard input: {e}")))?;
            Ok(text)
        }
        (None, None, None) => Err(usage("no text to continue: give -p TEXT, -f FILE or -")),
    }
}

pub fn main(args: &Args) -> Result<()> {
    let prompt = text(args)?;
    let drawn =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_micros() as u64 % 1_000_000);
    let seed = args.seed.unwrap_or_else(drawn);
    let Args { temperature, top_k, top_p, .. } = *args;
    let sampler = Sampler::new(Sampling { temperature, top_k, top_p, seed, ..Sampling::default() })?;
    let model = open_model(&args.target.model, Head::Default)?;
    if !model.info().generates {
        return Err(usage(format!("{} predicts no tokens: use `fanfold embed`", args.target.model.display())));
    }
    let tokenizer = tokenizer(&model)?;
    let ids = tokenizer.encode(&prompt, true)?;
    let decision = decide(&model, &args.target, args.logits.is_some())?;
    check_tokens(&ids, &decision)?;
    let stop = stop_on_interrupt()?;
    let mut engine = open(&model, &decision)?;
    if let Some(path) = &args.logits {
        write_tensor(path, "logits", &engine.feed(&ids)?)?;
        engine.reset();
    }
    if args.tokens == 0 {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    let mut stream = tokenizer.stream(true);
    let started = Instant::now();
    let tokens = engine.generate(&ids, args.tokens, sampler, args.ignore_eos, stop)?;
    let prefilled = started.elapsed();
    let mut count = 0usize;
    for token in tokens {
        count += 1;
        if let Some(piece) = stream.push(token?)? {
            out.write_all(piece.as_bytes())?;
            out.flush()?;
        }
    }
    if let Some(piece) = stream.finish()? {
        out.write_all(piece.as_bytes())?;
    }
    writeln!(out)?;
    let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
    let decoded = (started.elapsed() - prefilled).as_secs_f64();
    eprintln!(
        "{} prompt tokens at {:.1}/s, {count} tokens at {:.1}/s, seed {seed}",
        ids.len(),
        rate(ids.len(), prefilled.as_secs_f64()),
        rate(count, decoded)
    );
    Ok(())
}
