//! What `run` and `chat` share: how tokens are chosen, and how a model is talked to.
//!
//! Ranges that flags can tell are refused when they are parsed; the rest is the library's. Read `run.rs` and `chat.rs`.

use crate::common::{Decision, within};
use crate::input::text_within;
use crate::values::{Seed, limit, min_p, seed, temperature, top_k};
use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use fanfold::Model;
use fanfold::chat::GenerationRequest;
use fanfold::generate::GenerateOptions;
use fanfold::text::TextError;
use fanfold::text::{ChatTemplate, FinishReason, Penalties, Sampling, Tokenizer};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

/// How tokens are chosen and what ends a text.
#[derive(clap::Args, Clone)]
pub struct SamplingArgs {
    /// 0 or less always takes the most likely token
    #[arg(long = "temp", default_value_t = 0.8, value_parser = temperature, value_name = "T")]
    temperature: f32,
    /// Choose among this many of the most likely tokens; 0 or less: all
    #[arg(long, default_value_t = 40, value_parser = top_k, value_name = "N")]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_parser = within(0.0, 1.0), value_name = "P")]
    top_p: f32,
    /// Choose among tokens at least this fraction as likely as the most likely one; 0 or less: all
    #[arg(long, default_value_t = 0.0, value_parser = min_p, value_name = "P")]
    min_p: f32,
    /// Divide the logits of tokens that were there before; 1: do not
    #[arg(long, default_value_t = 1.0, value_parser = within(0.0, 100.0), value_name = "X")]
    repeat_penalty: f32,
    /// Take this off the logits of tokens that were there before; a negative number makes them likelier
    #[arg(long, default_value_t = 0.0, value_parser = within(-100.0, 100.0), value_name = "X")]
    presence_penalty: f32,
    /// Take this off for each time a token was there before; a negative number makes it likelier
    #[arg(long, default_value_t = 0.0, value_parser = within(-100.0, 100.0), value_name = "X")]
    frequency_penalty: f32,
    /// How many tokens back the penalties look; 0: penalties are off, -1: the whole context
    #[arg(long, default_value_t = 64, value_parser = limit, value_name = "N")]
    repeat_last_n: usize,
    /// Start of the random numbers; -1: drawn, and told on stderr
    #[arg(long, default_value = "-1", value_parser = seed, value_name = "N")]
    seed: Seed,
    /// End the text before this one; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Go on after an end token
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    /// What they ask for: at most `most` tokens, until `interrupt` is set, of an answer in a conversation.
    pub fn asking(&self, max: usize, interrupt: Arc<AtomicBool>) -> GenerationRequest {
        let drawn =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_micros() as u64 % 1_000_000);
        let SamplingArgs { temperature, top_k, top_p, min_p, .. } = *self;
        let penalties = Penalties {
            repeat: self.repeat_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            last: self.repeat_last_n,
        };
        let seed = match self.seed {
            Seed::Given(seed) => seed,
            Seed::Drawn => drawn(),
        };
        let sampling = Sampling { temperature, top_k, top_p, min_p, penalties, seed };
        let options = GenerateOptions::new(max).cancel(interrupt);
        let options = if self.ignore_eos { options.ignore_end() } else { options };
        GenerationRequest::new(sampling, options).stops(self.stop.clone())
    }
}

/// Why a text of `tokens` tokens ended, and what would make it longer.
pub fn ended(reason: &FinishReason, tokens: usize, decision: &Decision, tokenizer: &Tokenizer) -> String {
    let (capacity, made_for) = (decision.limits.capacity, decision.made_for);
    let detail = match reason {
        FinishReason::EndToken(id) => format!(" {id} {:?}", tokenizer.token(*id).unwrap_or_default()),
        FinishReason::StopText(text) => format!(" {text:?}"),
        FinishReason::Length => format!(" ({}, as -n says)", counted(tokens, "token")),
        FinishReason::Context if capacity < made_for => {
            format!(" ({capacity} positions are full; -c raises it, up to the {made_for} that the model was made for)")
        }
        FinishReason::Context => format!(" ({capacity} positions are full, and the model was made for no more)"),
        FinishReason::Cancelled => String::new(),
    };
    format!("ended: {}{detail}", reason.name())
}

/// `24 tokens` or `1 token`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `24 tokens in 1.20 s, 21.3/s once warm`, with a rate where there is one. A rate leaves out the first call of each shape, which
/// compiles kernels.
pub fn timed(n: usize, what: &str, time: Duration, rate: Option<f64>) -> String {
    let rate = rate.map(|rate| format!(", {rate:.1}/s once warm")).unwrap_or_default();
    format!("{} in {:.2} s{rate}", counted(n, what), time.as_secs_f64())
}

/// How the model is talked to.
#[derive(clap::Args, Clone)]
pub struct TalkArgs {
    /// What the system tells the model before anything else
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// A chat template in Jinja, instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
}

/// Templates are a few KB; anything longer was given in error.
const LONGEST_TEMPLATE: usize = 1 << 20;

impl TalkArgs {
    /// The template that is given, or else the model's own.
    pub fn template(&self, model: &Model) -> Result<ChatTemplate> {
        let (path, source) = match &self.template {
            Some(path) => (path.clone(), text_within(path, LONGEST_TEMPLATE)?),
            None => {
                let missing = || fanfold::Error::from(TextError::NoTemplate { path: model.path().to_owned() });
                model.chat_template()?.ok_or_else(missing)?
            }
        };
        Ok(ChatTemplate::new(path, &source, model.special_tokens()?, SystemTime::now())?)
    }
}
