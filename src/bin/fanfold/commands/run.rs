//! `fanfold run`: continues a text, or several at once.
//!
//! Text goes to stdout as it comes, and how it ended to stderr. Nothing here knows a conversation of more than one turn: read
//! `chat.rs` for those.

use crate::arguments::numbers::{count, limit};
use crate::arguments::sampling::{SamplingArgs, TalkArgs};
use crate::arguments::target::Target;
use crate::engine::decision::{Decision, check_tokens, decide_as};
use crate::engine::load::open;
use crate::engine::models::{generator, template, tokenizer};
use crate::engine::summary::{counted, ended, timed};
use crate::files::input;
use crate::files::output::OutputFile;
use crate::terminal::interrupt;
use crate::terminal::print::{say, tell};
use crate::terminal::progress::{clear, progress_bar, waiting};
use crate::usage::usage;
use anyhow::Result;
use fanfold::chat::{Answer, GenerationRequest, Piece, answer, answers};
use fanfold::generate::Engine;
use fanfold::text::{ChatTemplate, FinishReason, Message, Sampler, Scores, Tokenizer};
use serde_json::{Value, json};
use std::io::{StdoutLock, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold run MODEL -p \"Once upon a time\" -n 100 --devices 0,1 --ratios 3,2")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The text to continue; given several times, all are continued at once
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["file", "stdin"])]
    prompt: Vec<String>,
    /// A file that holds the text; `-` is standard input
    #[arg(short, long, conflicts_with = "stdin")]
    file: Option<PathBuf>,
    /// `-` reads the text from standard input
    #[arg(value_parser = ["-"], value_name = "-", hide_possible_values = true)]
    stdin: Option<String>,
    /// Tokens to generate at most; -1: until an end token, or until the context is full
    #[arg(short = 'n', long = "tokens", default_value_t = 64, value_parser = limit, value_name = "N")]
    tokens: usize,
    /// Talk to the model: the text is a turn of a conversation, in the model's own chat template
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    talk: TalkArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Instead of text, a line of JSON per token: its log-probability, and those of the N most likely ones; the last line
    /// says why the text ended
    #[arg(long, value_parser = count, value_name = "N")]
    logprobs: Option<usize>,
    /// Write the logits of the prompt, [tokens, vocabulary] in f32
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
}

/// The texts to continue.
fn texts(args: &Args) -> Result<Vec<String>> {
    match (&args.file, &args.stdin) {
        _ if !args.prompt.is_empty() => Ok(args.prompt.clone()),
        (Some(file), _) => Ok(vec![input::text(file)?]),
        (None, Some(stdin)) => Ok(vec![input::text(Path::new(stdin))?]),
        (None, None) => Err(usage("no text to continue: give -p TEXT, -f FILE or -")),
    }
}

/// The tokens of a text to continue, or, with a chat template, of a turn to answer.
fn encode(args: &Args, tokenizer: &Tokenizer, chat: Option<&ChatTemplate>, text: &str) -> Result<Vec<u32>> {
    let Some(template) = chat else { return Ok(tokenizer.encode(text, true)?) };
    let system = args.talk.system.iter().map(|text| Message::new("system", text.as_str()));
    let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
    Ok(template.encode(tokenizer, &messages)?)
}

pub fn main(args: &Args) -> Result<()> {
    let prompts = texts(args)?;
    if prompts.len() > 1 && (args.logprobs.is_some() || args.logits.is_some()) {
        return Err(usage("--logprobs and --logits take one text"));
    }
    let logits = args.logits.as_deref().map(OutputFile::open).transpose()?;
    // Options that make sense only in a conversation imply one.
    let talks = args.chat || args.talk.template.is_some() || args.talk.system.is_some();
    let request = args.sampling.request(args.tokens, interrupt::flag());
    let request = if talks { request } else { request.continues() };
    Sampler::new(request.sampling)?;
    let model = generator(&args.target)?;
    let tokenizer = tokenizer(&model)?;
    let template = if talks { Some(template(&args.talk, &model)?) } else { None };
    let encoded = prompts.iter().map(|text| encode(args, &tokenizer, template.as_ref(), text));
    let encoded: Vec<Vec<u32>> = encoded.collect::<Result<_>>()?;
    let options = args.target.options(args.logits.is_some()).batch(encoded.len());
    let decision = decide_as(&model, &args.target, options)?;
    encoded.iter().try_for_each(|ids| check_tokens(ids, &decision))?;
    let mut engine = open(&model, &decision)?;
    let [ids] = encoded.as_slice() else {
        interrupt::stoppable();
        together(&mut engine, &tokenizer, &decision, &prompts, &encoded, &request)?;
        return Ok(interrupt::check()?);
    };
    if let Some(file) = logits {
        let bar = waiting("computing the prompt's logits");
        let logits = engine.feed(ids);
        bar.finish_and_clear();
        file.write_tensor("logits", &logits?)?;
        engine.reset();
    }
    let mut printer =
        Printer { out: std::io::stdout().lock(), tokenizer: &tokenizer, logprobs: args.logprobs, last: None };
    if args.tokens == 0 {
        if args.logprobs.is_some() {
            printer.end(&FinishReason::Length)?;
        }
        tell(ended(&FinishReason::Length, 0, &decision, &tokenizer));
        return Ok(());
    }
    let mut written = Ok(());
    let bar = waiting("reading the prompt");
    interrupt::stoppable();
    let answer = answer(&mut engine, &tokenizer, ids, &request, |piece| {
        clear(&bar);
        if written.is_ok() {
            written = printer.print(piece);
            if written.is_err() {
                // Stdout is closed, so nobody waits for the rest of the answer.
                request.options.cancel.cancel();
            }
        }
    });
    clear(&bar);
    written?;
    let answer = answer?;
    printer.end(&answer.finish_reason)?;
    let pace = engine.pace();
    tell(format_args!(
        "{}; {}; seed {}",
        timed(ids.len(), "prompt token", answer.prefill, pace.prefill.tokens_per_second()),
        timed(answer.tokens.len(), "token", answer.decode, pace.decode.tokens_per_second()),
        request.sampling.seed
    ));
    tell(ended(&answer.finish_reason, answer.tokens.len(), &decision, &tokenizer));
    Ok(interrupt::check()?)
}

/// Continues several texts at once, and prints one after the other, each under its prompt.
fn together(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    decision: &Decision,
    prompts: &[String],
    encoded: &[Vec<u32>],
    request: &GenerationRequest,
) -> Result<()> {
    let max = request.options.max_tokens.min(decision.limits.capacity).saturating_mul(encoded.len());
    let bar = progress_bar(max as u64, "{bar:30} {pos}/{len} tokens {eta}");
    let texts = answers(engine, tokenizer, encoded, request, |tokens| bar.set_position(tokens as u64));
    bar.finish_and_clear();
    let texts = texts?;
    for (prompt, Answer { text, .. }) in prompts.iter().zip(&texts) {
        say(format_args!("==> {} <==\n{text}\n", prompt.trim().lines().next().unwrap_or_default()))?;
    }
    for (number, Answer { tokens, finish_reason, .. }) in (1..).zip(&texts) {
        let reason = ended(finish_reason, tokens.len(), decision, tokenizer);
        tell(format_args!("prompt {number}: {}, {reason}", counted(tokens.len(), "token")));
    }
    let tokens = texts.iter().map(|answer| answer.tokens.len()).sum();
    let time = texts.first().map(|answer| answer.prefill + answer.decode).unwrap_or_default();
    let told = timed(tokens, "token", time, engine.pace().decode.tokens_per_second());
    tell(format_args!("{} prompts, in all {told}, seed {}", prompts.len(), request.sampling.seed));
    Ok(())
}

/// Writes an answer as text, or as a line of JSON per token.
struct Printer<'a> {
    out: StdoutLock<'a>,
    tokenizer: &'a Tokenizer,
    /// How many of the most likely tokens a line of JSON lists. `None` for text.
    logprobs: Option<usize>,
    /// The last token's line, which is not written yet: text that is held back until the end is added to it.
    last: Option<Value>,
}

impl Printer<'_> {
    /// Writes what one token adds to the answer.
    fn print(&mut self, piece: Piece<'_>) -> std::io::Result<()> {
        let Some(max) = self.logprobs else {
            self.out.write_all(piece.text.as_bytes())?;
            return self.out.flush();
        };
        let spelled = |id: u32| self.tokenizer.token(id);
        match (piece.token, &mut self.last) {
            (Some((id, logits)), _) => {
                let scores = Scores::of(logits, id, max);
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

    /// Writes the last token's line, and keeps `next` as the new last one.
    fn line(&mut self, next: Option<Value>) -> std::io::Result<()> {
        if let Some(line) = std::mem::replace(&mut self.last, next) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    /// Ends the text. The last line of JSON says why it ended; where there is no token, that is a line of its own. The fields are
    /// named as vLLM names them, and a field `ended` tells apart the two reasons that vLLM calls `length`.
    fn end(&mut self, reason: &FinishReason) -> std::io::Result<()> {
        if self.logprobs.is_none() {
            return writeln!(self.out);
        }
        let mut line = self.last.take().unwrap_or_else(|| json!({}));
        line["finish_reason"] = reason.finish_reason().into();
        line["stop_reason"] = match reason {
            FinishReason::EndToken(id) => (*id).into(),
            FinishReason::StopText(text) => text.as_str().into(),
            FinishReason::Length | FinishReason::Context | FinishReason::Cancelled => Value::Null,
        };
        line["ended"] = reason.name().into();
        self.last = Some(line);
        self.line(None)
    }
}
