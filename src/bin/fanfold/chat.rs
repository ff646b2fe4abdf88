//! `fanfold chat`: a conversation, at a terminal or a turn per line of standard input.
//!
//! Answers go to stdout and all else to stderr, so that a chat can be piped. Read `asking.rs` for what it shares with
//! `run`.

use crate::asking::{SamplingArgs, TalkArgs};
use crate::common::{Target, count, decide, generator, open, stop_on_interrupt, tokenizer, usage};
use anyhow::Result;
use fanfold::Error;
use fanfold::chat::{Answer, Asking, Chat, End};
use fanfold::error::{SessionError, TextError};
use fanfold::text::{Message, Sampler};
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
    /// Tokens of one answer at most [default: as many as the context holds]
    #[arg(short = 'n', long = "tokens", value_parser = count, value_name = "N")]
    tokens: Option<usize>,
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
    let stop = stop_on_interrupt()?;
    // Where no answer is under way, Ctrl-C finds itself to be the second one, and ends the program.
    stop.store(true, Ordering::Relaxed);
    let asking = args.sampling.asking(args.tokens.unwrap_or(usize::MAX), stop.clone());
    // What cannot be is refused before the weights are loaded, which may take minutes.
    Sampler::new(asking.sampling)?;
    if let Some(system) = &args.talk.system {
        let alone = [Message::new("system", system.as_str()), Message::new("user", "")];
        template.encode(&tokenizer, &alone)?;
    }
    let mut chat = Chat::new(open(&model, &decision)?, tokenizer, template, args.talk.system.clone());
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("{}, context of {}; /help lists commands", args.target.model.display(), decision.limits.capacity);
    }
    let mut totals = Totals::default();
    loop {
        stop.store(true, Ordering::Relaxed);
        let Some(line) = read(terminal)? else { break };
        stop.store(false, Ordering::Relaxed);
        match line.as_str() {
            "" => {}
            "/quit" | "/exit" => break,
            "/help" => eprintln!("{HELP}"),
            "/reset" => chat.reset(),
            "/stats" => eprintln!("{}", totals.told(&chat)),
            word if is_command(word) => match terminal {
                true => eprintln!("{word} is no command\n{HELP}"),
                false => return Err(usage(format!("{word} is no command; there are: /reset, /stats, /help, /quit"))),
            },
            text => match ask(&mut chat, text, &asking) {
                Ok(answer) => totals.add(answer),
                Err(error) if terminal && spares_the_chat(&error) => eprintln!("{error:#}\n/reset begins anew"),
                Err(error) => return Err(error),
            },
        }
    }
    eprintln!("{}, seed {}", totals.told(&chat), asking.sampling.seed);
    Ok(())
}

/// A slash and letters, nothing else: paths and the like are text.
fn is_command(line: &str) -> bool {
    line.strip_prefix('/').is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic()))
}

/// The next line without its end; none at the end of the input.
fn read(terminal: bool) -> Result<Option<String>> {
    if terminal {
        eprint!("> ");
    }
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(LINE).read_until(b'\n', &mut line);
    match read.map_err(|e| usage(format!("standard input: {e}")))? {
        0 => {
            if terminal {
                eprintln!();
            }
            Ok(None)
        }
        n if n as u64 == LINE => Err(usage(format!("standard input: a line of more than {LINE} bytes"))),
        _ => Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string())),
    }
}

fn ask(chat: &mut Chat, text: &str, asking: &Asking) -> Result<Answer> {
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let answer = chat.ask(text, asking, |piece| {
        if written.is_ok() {
            written = out.write_all(piece.text.as_bytes()).and_then(|()| out.flush());
            if written.is_err() {
                // The reader has gone: nobody waits for the rest.
                asking.interrupt.store(true, Ordering::Relaxed);
            }
        }
    });
    written?;
    let answer = answer?;
    writeln!(out)?;
    match answer.end {
        End::Interrupted => eprintln!("(stopped)"),
        End::Full => eprintln!("(the context is full: /reset begins anew, and -c makes it larger)"),
        End::Length | End::Stop | End::Token => {}
    }
    Ok(answer)
}

/// Whether the error is of the turn alone.
fn spares_the_chat(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::Session(SessionError::Context { .. }))
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
    prefill: f64,
    decode: f64,
}

impl Totals {
    fn add(&mut self, answer: Answer) {
        self.turns += 1;
        self.prompt += answer.prompt;
        self.cached += answer.cached;
        self.tokens += answer.tokens.len();
        self.prefill += answer.prefill.as_secs_f64();
        self.decode += answer.decode.as_secs_f64();
    }

    fn told(&self, chat: &Chat) -> String {
        let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
        let (used, capacity) = chat.context();
        let Totals { turns, prompt, cached, tokens, .. } = *self;
        format!(
            "{turns} turns, {prompt} prompt tokens, {cached} of them cached, the others at {:.1}/s, {tokens} tokens at \
             {:.1}/s, {used} of {capacity} positions in use",
            rate(prompt - cached, self.prefill),
            rate(tokens, self.decode)
        )
    }
}
