//! What `run` and `chat` share: how tokens are chosen, and how a model is talked to.
//!
//! Ranges that flags can tell are refused when they are parsed; the rest is the library's. Read `run.rs` and `chat.rs`.

use crate::common::{count, usage, within};
use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use fanfold::Model;
use fanfold::chat::Asking;
use fanfold::error::TextError;
use fanfold::text::{ChatTemplate, Penalties, Sampling};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// How tokens are chosen and what ends a text.
#[derive(clap::Args, Clone)]
pub struct SamplingArgs {
    /// 0 always takes the most likely token
    #[arg(long = "temp", default_value_t = 0.8, value_parser = within(0.0, 100.0), value_name = "T")]
    temperature: f32,
    /// Choose among this many of the most likely tokens; 0: all
    #[arg(long, default_value_t = 40, value_parser = count, value_name = "N")]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_parser = within(0.0, 1.0), value_name = "P")]
    top_p: f32,
    /// Choose among tokens at least this fraction as likely as the most likely one; 0: all
    #[arg(long, default_value_t = 0.0, value_parser = within(0.0, 1.0), value_name = "P")]
    min_p: f32,
    /// Divide the logits of tokens that were there before; 1: do not
    #[arg(long, default_value_t = 1.0, value_parser = within(0.0, 100.0), value_name = "X")]
    repeat_penalty: f32,
    /// Take this off the logits of tokens that were there before
    #[arg(long, default_value_t = 0.0, value_parser = within(0.0, 100.0), value_name = "X")]
    presence_penalty: f32,
    /// Take this off for each time a token was there before
    #[arg(long, default_value_t = 0.0, value_parser = within(0.0, 100.0), value_name = "X")]
    frequency_penalty: f32,
    /// How many tokens back the penalties look
    #[arg(long, default_value_t = 64, value_parser = count, value_name = "N")]
    repeat_last_n: usize,
    /// Start of the random numbers; drawn and told if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the text before this one; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new(), allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after an end token
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    /// What they ask for: at most `most` tokens, until `interrupt` is set, of an answer in a conversation.
    pub fn asking(&self, most: usize, interrupt: Arc<AtomicBool>) -> Asking {
        let drawn =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_micros() as u64 % 1_000_000);
        let SamplingArgs { temperature, top_k, top_p, min_p, .. } = *self;
        let penalties = Penalties {
            repeat: self.repeat_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            last: self.repeat_last_n,
        };
        let seed = self.seed.unwrap_or_else(drawn);
        let sampling = Sampling { temperature, top_k, top_p, min_p, penalties, seed };
        Asking { sampling, most, stops: self.stop.clone(), ignore_end: self.ignore_eos, continues: false, interrupt }
    }
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

/// Templates are a few KB; whatever else is given in error is not read to its end.
const MOST_READ: u64 = 1 << 20;

impl TalkArgs {
    /// The template that is given, or else the model's own.
    pub fn template(&self, model: &Model) -> Result<ChatTemplate> {
        let (path, source) = match &self.template {
            Some(path) => {
                let mut source = String::new();
                let read = std::fs::File::open(path).and_then(|file| file.take(MOST_READ).read_to_string(&mut source));
                read.map_err(|e| usage(format!("{}: {e}", path.display())))?;
                (path.clone(), source)
            }
            None => {
                let missing = || fanfold::Error::from(TextError::NoTemplate { path: model.path().to_owned() });
                model.chat_template()?.ok_or_else(missing)?
            }
        };
        Ok(ChatTemplate::new(path, &source, model.special_tokens()?, SystemTime::now())?)
    }
}
