//! `fanfold chat`: a conversation, typed at a terminal or with a turn per line of standard input.
//!
//! Answers go to stdout and everything else to stderr, so that a chat can be piped. How lines are typed and kept is not known
//! here: read `terminal/lines.rs` for it, and [`fanfold::chat`] for what turns share.

use crate::arguments::numbers::limit;
use crate::arguments::sampling::{SamplingArgs, TalkArgs};
use crate::arguments::target::Target;
use crate::engine::decision::decide;
use crate::engine::load::open;
use crate::engine::models::{generator, template, tokenizer};
use crate::engine::summary::ended;
use crate::errors::library_error;
use crate::exit::message;
use crate::machine::folders;
use crate::terminal::interrupt;
use crate::terminal::lines::Lines;
use crate::terminal::print::tell;
use crate::terminal::progress::{clear, waiting};
use crate::usage::usage;
use anyhow::Result;
use fanfold::Error;
use fanfold::chat::{Answer, Chat, GenerationRequest};
use fanfold::generate::{GenerateError, Rate};
use fanfold::text::{FinishReason, Message, Sampler, TextError};
use std::io::{IsTerminal, Write};

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold chat MODEL --system \"Answer in one sentence.\" --devices 0,1

At a terminal Ctrl-C stops an answer, and ends the chat where there is none to stop; Ctrl-D ends it, too. Lines can be
edited, Tab completes commands, and the arrow keys bring back earlier lines, which are kept in ~/.local/state/fanfold; one
that begins with a space is not kept. From a file or a pipe each line is a turn. Lines that are commands: /reset, /stats,
/help, /quit.")]
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

/// The lines that are commands, as Tab completes them.
const COMMANDS: [&str; 4] = ["/reset", "/stats", "/help", "/quit"];

const HELP: &str = "/reset  forget all turns but the system's
/stats  tokens, cached prefix, tokens/s, context
/help   this
/quit   end, as does Ctrl-D; Ctrl-C stops an answer";

pub fn main(args: &Args) -> Result<()> {
    let model = generator(&args.target)?;
    let tokenizer = tokenizer(&model)?;
    let template = template(&args.talk, &model)?;
    let decision = decide(&model, &args.target, false)?;
    let request = args.sampling.request(args.tokens, interrupt::flag());
    // Settings and a template that cannot be used are refused before the weights are loaded, which may take minutes.
    Sampler::new(request.sampling)?;
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
    let mut lines = Lines::new(&COMMANDS, folders::state().map(|folder| folder.join("chat_history")));
    let mut totals = Totals::default();
    loop {
        // The first Ctrl-C stops an answer. At the prompt there is no answer to stop, so one Ctrl-C ends the program.
        interrupt::unstoppable();
        let Some(line) = lines.next()? else { break };
        interrupt::stoppable();
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
            text => match ask(&mut chat, text, &request) {
                Ok(answer) => {
                    let reason = ended(&answer.finish_reason, answer.tokens.len(), &decision, &tokenizer);
                    let way_out =
                        if answer.finish_reason == FinishReason::Context { "; /reset begins anew" } else { "" };
                    tell(format_args!("({reason}{way_out})"));
                    totals.add(answer);
                }
                Err(error) if terminal && spares_the_chat(&error) => {
                    tell(format_args!("{}\n/reset begins anew", message(&error)));
                }
                Err(error) => return Err(error),
            },
        }
    }
    tell(format_args!("{}, seed {}", totals.told(&chat), request.sampling.seed));
    Ok(())
}

/// Whether `line` is a slash and letters and nothing else. A path, for example, is text.
fn is_command(line: &str) -> bool {
    line.strip_prefix('/').is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic()))
}

/// Asks `text`, and prints the answer as it comes.
fn ask(chat: &mut Chat, text: &str, request: &GenerationRequest) -> Result<Answer> {
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let bar = waiting("reading");
    let answer = chat.ask(text, request, |piece| {
        clear(&bar);
        if written.is_ok() {
            written = out.write_all(piece.text.as_bytes()).and_then(|()| out.flush());
            if written.is_err() {
                // Stdout is closed, so nobody waits for the rest of the answer.
                request.options.cancel.cancel();
            }
        }
    });
    clear(&bar);
    written?;
    let answer = answer?;
    writeln!(out)?;
    Ok(answer)
}

/// Whether `error` is of one turn, so that the chat can go on.
fn spares_the_chat(error: &anyhow::Error) -> bool {
    matches!(
        library_error(error),
        Some(
            Error::Generate(GenerateError::Context { .. })
                | Error::Text(TextError::Template { .. } | TextError::Tokenizer { .. })
        )
    )
}

/// Sums over all turns of the conversation.
#[derive(Default)]
struct Totals {
    turns: usize,
    /// Tokens that were answered.
    prompt: usize,
    /// Those of them that were in the KV cache already.
    cached: usize,
    /// Tokens of the answers.
    tokens: usize,
}

impl Totals {
    fn add(&mut self, answer: Answer) {
        self.turns += 1;
        self.prompt += answer.prompt;
        self.cached += answer.cached;
        self.tokens += answer.tokens.len();
    }

    /// The sums as a line of text.
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
