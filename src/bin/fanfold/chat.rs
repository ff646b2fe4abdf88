//! `fanfold chat`: a conversation, at a terminal or a turn per line of standard input.
//!
//! Answers go to stdout and all else to stderr, so that a chat can be piped. Read `asking.rs` for what it shares with
//! `run`.

use crate::asking::{SamplingArgs, TalkArgs, ended};
use crate::common::{Target, clear, decide, generator, open, tell, tokenizer, usage, waiting};
use crate::interrupt;
use crate::values::limit;
use anyhow::Result;
use fanfold::Error;
use fanfold::chat::{Answer, Chat, GenerationRequest};
use fanfold::generate::GenerateError;
use fanfold::generate::Rate;
use fanfold::text::TextError;
use fanfold::text::{FinishReason, Message, Sampler};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::sync::atomic::Ordering;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold chat MODEL --system \"Answer in one sentence.\" --devices 0,1

At a terminal Ctrl-C stops an answer, and ends the chat where there is none to stop; Ctrl-D ends it, too. From a file or
a pipe each line is a turn. Lines that are commands: /reset, /stats, /help, /quit.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Tokens of one answer at most; -1: until an end token, or until the context is full
    #[arg(short = 'n', long = "tokens", default_value = "-1", value_parser = limit, value_name = "N")]
    tokens: usize,
    #[command(flatten)]
    talk: TalkArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

const HELP: &str = "/reset  forget all turns but the system's
/stats  tokens, cached prefix, tokens/s, context
/help   this
/quit   end, as does Ctrl-D; Ctrl-C stops an answer";

/// The longest line that is read; no context holds its tokens.
const LINE: u64 = 64 << 20;

pub fn main(args: &Args) -> Result<()> {
    let model = generator(&args.target)?;
    let tokenizer = tokenizer(&model)?;
    let template = args.talk.template(&model)?;
    let decision = decide(&model, &args.target, false)?;
    // Ctrl-C stops an answer; where none is under way the flag is set, and it ends the program.
    let stop = interrupt::flag();
    let asking = args.sampling.asking(args.tokens, stop.clone());
    // What cannot be is refused before the weights are loaded, which may take minutes.
    Sampler::new(asking.sampling)?;
    if let Some(system) = &args.talk.system {
        let alone = [Message::new("system", system.as_str()), Message::new("user", "")];
        template.encode(&tokenizer, &alone)?;
    }
    let mut chat = Chat::new(open(&model, &decision)?, tokenizer.clone(), template, args.talk.system.clone());
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        let (model, context) = (args.target.model.display(), decision.limits.capacity);
        tell(format_args!("{model}, context of {context}; /help lists commands"));
    }
    let mut totals = Totals::default();
    loop {
        stop.store(true, Ordering::Relaxed);
        let Some(line) = read(terminal)? else { break };
        stop.store(false, Ordering::Relaxed);
        match line.as_str() {
            "" => {}
            "/quit" | "/exit" => break,
            "/help" => tell(HELP),
            "/reset" => chat.reset(),
            "/stats" => tell(totals.told(&chat)),
            word if is_command(word) => match terminal {
                true => tell(format_args!("{word} is no command\n{HELP}")),
                false => return Err(usage(format!("{word} is no command; there are: /reset, /stats, /help, /quit"))),
            },
            text => match ask(&mut chat, text, &asking) {
                Ok(answer) => {
                    let reason = ended(&answer.finish_reason, answer.tokens.len(), &decision, &tokenizer);
                    let way_out =
                        if answer.finish_reason == FinishReason::Context { "; /reset begins anew" } else { "" };
                    tell(format_args!("({reason}{way_out})"));
                    totals.add(answer);
                }
                Err(error) if terminal && spares_the_chat(&error) => {
                    tell(format_args!("{error:#}\n/reset begins anew"));
                }
                Err(error) => return Err(error),
            },
        }
    }
    tell(format_args!("{}, seed {}", totals.told(&chat), asking.sampling.seed));
    Ok(())
}

/// A slash and letters, nothing else: paths and the like are text.
fn is_command(line: &str) -> bool {
    line.strip_prefix('/').is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic()))
}

/// The next line without its end; none at the end of the input.
fn read(terminal: bool) -> Result<Option<String>> {
    if terminal {
        // As with `tell`, what cannot be shown is lost.
        let _ = write!(std::io::stderr(), "> ");
    }
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(LINE).read_until(b'\n', &mut line);
    match read.map_err(|e| usage(format!("standard input: {e}")))? {
        0 => {
            if terminal {
                tell("");
            }
            Ok(None)
        }
        n if n as u64 == LINE => Err(usage(format!("standard input: a line of more than {LINE} bytes"))),
        _ => Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string())),
    }
}

fn ask(chat: &mut Chat, text: &str, asking: &GenerationRequest) -> Result<Answer> {
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let bar = waiting("reading");
    let answer = chat.ask(text, asking, |piece| {
        clear(&bar);
        if written.is_ok() {
            written = out.write_all(piece.text.as_bytes()).and_then(|()| out.flush());
            if written.is_err() {
                // The reader has gone: nobody waits for the rest.
                asking.options.cancel.cancel();
            }
        }
    });
    clear(&bar);
    written?;
    let answer = answer?;
    writeln!(out)?;
    Ok(answer)
}

/// Whether the error is of the turn alone.
fn spares_the_chat(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::Generate(GenerateError::Context { .. }))
            | Some(Error::Text(TextError::Template { .. } | TextError::Tokenizer { .. }))
    )
}

/// What all turns took.
#[derive(Default)]
struct Totals {
    turns: usize,
    prompt: usize,
    cached: usize,
    tokens: usize,
}

impl Totals {
    fn add(&mut self, answer: Answer) {
        self.turns += 1;
        self.prompt += answer.prompt;
        self.cached += answer.cached;
        self.tokens += answer.tokens.len();
    }

    fn told(&self, chat: &Chat) -> String {
        let rate = |what: &str, rate: &Rate| {
            rate.tokens_per_second().map(|rate| format!("{what} at {rate:.1}/s once warm")).unwrap_or_default()
        };
        let (used, capacity) = chat.context();
        let Totals { turns, prompt, cached, tokens } = *self;
        let (prefill, decode) = (rate(", the others", &chat.pace().prefill), rate("", &chat.pace().decode));
        format!(
            "{turns} turns, {prompt} prompt tokens, {cached} of them cached{prefill}, {tokens} tokens{decode}, \
             {used} of {capacity} positions in use"
        )
    }
}
