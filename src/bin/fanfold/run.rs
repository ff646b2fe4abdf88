//! `fanfold run`: continue a text.

use crate::asking::{SamplingArgs, TalkArgs};
use crate::common::{
    Target, check_tokens, count, decide_as, generator, open, progress_bar, say, stop_on_interrupt, tokenizer, usage,
    write_tensor,
};
use anyhow::Result;
use fanfold::chat::{Asking, Piece, answer, answers};
use fanfold::generate::{Engine, EngineOptions};
use fanfold::text::{ChatTemplate, Message, Sampler, Scores, Tokenizer};
use serde_json::{Value, json};
use std::io::{Read, StdoutLock, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold run MODEL -p \"Once upon a time\" -n 100 --devices 0,1 --ratios 3,2")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The text to continue; given several times, all are continued at once
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["file", "stdin"])]
    prompt: Vec<String>,
    /// A file that holds the text
    #[arg(short, long, conflicts_with = "stdin")]
    file: Option<PathBuf>,
    /// `-` reads the text from standard input
    #[arg(value_parser = ["-"], value_name = "-", hide_possible_values = true)]
    stdin: Option<String>,
    /// Tokens to generate at most
    #[arg(short = 'n', long = "tokens", default_value_t = 64, value_parser = count, value_name = "N")]
    tokens: usize,
    /// Talk to the model: the text is a turn of a conversation, in the model's own chat template
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    talk: TalkArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Instead of text, a line of JSON per token: its log-probability, and those of the N most likely ones
    #[arg(long, value_parser = count, value_name = "N")]
    logprobs: Option<usize>,
    /// Write the logits of the prompt, [tokens, vocabulary] in f32
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
}

/// The texts that the arguments name.
fn texts(args: &Args) -> Result<Vec<String>> {
    match (&args.file, &args.stdin) {
        _ if !args.prompt.is_empty() => Ok(args.prompt.clone()),
        (Some(file), _) => {
            Ok(vec![std::fs::read_to_string(file).map_err(|e| usage(format!("{}: {e}", file.display())))?])
        }
        (None, Some(_)) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| usage(format!("standard input: {e}")))?;
            Ok(vec![text])
        }
        (None, None) => Err(usage("no text to continue: give -p TEXT, -f FILE or -")),
    }
}

/// The tokens of a text to continue, or of a turn to answer.
fn encode(args: &Args, tokenizer: &Tokenizer, template: Option<&ChatTemplate>, text: &str) -> Result<Vec<u32>> {
    let Some(template) = template else { return Ok(tokenizer.encode(text, true)?) };
    let system = args.talk.system.iter().map(|text| Message::new("system", text.as_str()));
    let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
    Ok(template.encode(tokenizer, &messages)?)
}

pub fn main(args: &Args) -> Result<()> {
    let prompts = texts(args)?;
    if prompts.len() > 1 && (args.logprobs.is_some() || args.logits.is_some()) {
        return Err(usage("--logprobs and --logits take one text"));
    }
    let stop = stop_on_interrupt()?;
    // A template of one's own and a word of the system make sense in a conversation alone.
    let talks = args.chat || args.talk.template.is_some() || args.talk.system.is_some();
    let asking = Asking { continues: !talks, ..args.sampling.asking(args.tokens, stop) };
    Sampler::new(asking.sampling)?;
    let model = generator(&args.target)?;
    let tokenizer = tokenizer(&model)?;
    let template = if talks { Some(args.talk.template(&model)?) } else { None };
    let encoded = prompts.iter().map(|text| encode(args, &tokenizer, template.as_ref(), text));
    let encoded: Vec<Vec<u32>> = encoded.collect::<Result<_>>()?;
    let options = EngineOptions { batch: encoded.len(), ..args.target.options(args.logits.is_some()) };
    let decision = decide_as(&model, &args.target, options)?;
    encoded.iter().try_for_each(|ids| check_tokens(ids, &decision))?;
    let mut engine = open(&model, &decision)?;
    let [ids] = encoded.as_slice() else { return together(&mut engine, &tokenizer, &prompts, &encoded, &asking) };
    if let Some(path) = &args.logits {
        write_tensor(path, "logits", &engine.feed(ids)?)?;
        engine.reset();
    }
    if args.tokens == 0 {
        return Ok(());
    }
    let mut printer =
        Printer { out: std::io::stdout().lock(), tokenizer: &tokenizer, logprobs: args.logprobs, last: None };
    let mut written = Ok(());
    let answer = answer(&mut engine, &tokenizer, ids, &asking, |piece| {
        if written.is_ok() {
            written = printer.print(piece);
            if written.is_err() {
                // The reader has gone: nobody waits for the rest.
                asking.interrupt.store(true, Ordering::Relaxed);
            }
        }
    });
    written?;
    let answer = answer?;
    printer.end()?;
    let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
    eprintln!(
        "{} prompt tokens at {:.1}/s, {} tokens at {:.1}/s, seed {}",
        ids.len(),
        rate(ids.len(), answer.prefill.as_secs_f64()),
        answer.tokens.len(),
        rate(answer.tokens.len(), answer.decode.as_secs_f64()),
        asking.sampling.seed
    );
    Ok(())
}

/// Continues several texts at once, and prints them one after the other under their prompts.
fn together(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompts: &[String],
    encoded: &[Vec<u32>],
    asking: &Asking,
) -> Result<()> {
    let bar = progress_bar((asking.most * encoded.len()) as u64, "{bar:30} {pos}/{len} tokens {eta}");
    let started = Instant::now();
    let texts = answers(engine, tokenizer, encoded, asking, |tokens| bar.set_position(tokens as u64));
    bar.finish_and_clear();
    let texts = texts?;
    for (prompt, (text, _)) in prompts.iter().zip(&texts) {
        say(format_args!("==> {} <==\n{text}\n", prompt.trim().lines().next().unwrap_or_default()))?;
    }
    let tokens: usize = texts.iter().map(|(_, tokens)| tokens).sum();
    let rate = tokens as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!("{} prompts, {tokens} tokens at {rate:.1}/s in all, seed {}", prompts.len(), asking.sampling.seed);
    Ok(())
}

/// Writes an answer as text, or as a line of JSON per token.
struct Printer<'a> {
    out: StdoutLock<'a>,
    tokenizer: &'a Tokenizer,
    logprobs: Option<usize>,
    /// The line under way: text that is held back until the end belongs to the last token.
    last: Option<Value>,
}

impl Printer<'_> {
    fn print(&mut self, piece: Piece<'_>) -> std::io::Result<()> {
        let Some(most) = self.logprobs else {
            self.out.write_all(piece.text.as_bytes())?;
            return self.out.flush();
        };
        let spelled = |id: u32| self.tokenizer.token(id);
        match (piece.token, &mut self.last) {
            (Some((id, logits)), _) => {
                let scores = Scores::of(logits, id, most);
                let top =
                    scores.top.iter().map(|&(id, logprob)| json!({"id": id, "token": spelled(id), "logprob": logprob}));
                let top: Vec<Value> = top.collect();
                let line =
                    json!({"id": id, "token": spelled(id), "text": piece.text, "logprob": scores.logprob, "top": top});
                self.line(Some(line))
            }
            (None, Some(last)) => {
                last["text"] = format!("{}{}", last["text"].as_str().unwrap_or_default(), piece.text).into();
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Writes the line under way and begins `next`.
    fn line(&mut self, next: Option<Value>) -> std::io::Result<()> {
        if let Some(line) = std::mem::replace(&mut self.last, next) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        match self.logprobs {
            Some(_) => self.line(None),
            None => writeln!(self.out),
        }
    }
}
