//! The arguments of `run` and `chat`: how tokens are chosen, what ends a text, and how a conversation is put to the model.
//!
//! A value outside its range is refused when it is parsed; that values fit each other is checked by the library. Read
//! [`fanfold::text::Sampling`] for what the settings do.

use super::numbers::{Seed, limit, min_p, seed, temperature, top_k, within};
use clap::builder::NonEmptyStringValueParser;
use fanfold::chat::GenerationRequest;
use fanfold::generate::GenerateOptions;
use fanfold::text::{Penalties, Sampling};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

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
    /// The request that these arguments make: at most `max_tokens` tokens, stopped early when `stop` is set. It is a request
    /// for an answer in a conversation; `run` turns it into one that continues a text.
    pub fn request(&self, max_tokens: usize, stop: Arc<AtomicBool>) -> GenerationRequest {
        let SamplingArgs { temperature, top_k, top_p, min_p, .. } = *self;
        let penalties = Penalties {
            repeat: self.repeat_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            last: self.repeat_last_n,
        };
        let seed = match self.seed {
            Seed::Given(seed) => seed,
            Seed::Drawn => drawn_seed(),
        };
        let sampling = Sampling { temperature, top_k, top_p, min_p, penalties, seed };
        let options = GenerateOptions::new(max_tokens).cancel(stop);
        let options = if self.ignore_eos { options.ignore_end() } else { options };
        GenerationRequest::new(sampling, options).stops(self.stop.clone())
    }
}

/// A seed of at most six digits, so that a person can type it to repeat the run.
fn drawn_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |time| time.as_micros() as u64 % 1_000_000)
}

/// How a conversation is put to the model.
#[derive(clap::Args, Clone)]
pub struct TalkArgs {
    /// What the system tells the model before anything else
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// A chat template in Jinja, instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
}
