//! Measures the speed of an engine: tokens per second of prefill and of decode, after any number of earlier tokens.
//!
//! It times calls, and deliberately knows neither devices nor how numbers are shown. Tests have the names and the
//! meaning of those of llama.cpp's llama-bench. Read [`crate::generate`] for what an engine does.

use crate::error::Result;
use crate::generate::GenerateError;

use crate::generate::Engine;
use crate::random::Random;
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// The phase of a generation that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[doc(hidden)]
pub enum Phase {
    /// A prompt, in chunks of the engine's largest length.
    Prefill,
    /// Tokens decoded one by one.
    Decode,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Test {
    /// The phase that is timed.
    pub phase: Phase,
    /// Number of tokens timed.
    pub tokens: usize,
    /// Number of tokens in the KV cache before the timed ones.
    pub depth: usize,
}

impl Test {
    /// Positions of the KV cache that the test fills.
    #[doc(hidden)]
    pub fn positions(&self) -> usize {
        self.tokens.saturating_add(self.depth)
    }
}

/// llama-bench's names: `pp512` for a prompt, `tg128` for decoding, `pp512 @ d4096` after 4096 tokens.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Prefill => "pp",
            Phase::Decode => "tg",
        };
        let depth = if self.depth > 0 { format!(" @ d{}", self.depth) } else { String::new() };
        f.pad(&format!("{phase}{}{depth}", self.tokens))
    }
}

/// The times of a test.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Timing {
    /// The test.
    pub test: Test,
    /// The time of each repetition.
    pub times: Vec<Duration>,
}

impl Timing {
    /// Tokens per second of each repetition.
    #[doc(hidden)]
    pub fn rates(&self) -> Vec<f64> {
        self.times.iter().map(|time| self.test.tokens as f64 / time.as_secs_f64().max(1e-9)).collect()
    }
}

/// The mean of `values` and their sample standard deviation, which is 0 for a single value.
#[doc(hidden)]
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

/// Times `test` `repetitions` times, after a warm-up in which its calls compile and allocate what they need.
///
/// Tokens are random, but the same in every process. Every repetition starts with an empty KV cache; `progress` is
/// called after each with the number done. Errors when the context is too short, when a model that embeds is asked to
/// decode or to start after earlier tokens, and when the engine fails.
pub fn measure(engine: &mut Engine, test: Test, repetitions: usize, mut progress: impl FnMut(usize)) -> Result<Timing> {
    if !engine.model().info().generates && (test.phase == Phase::Decode || test.depth > 0) {
        let model = engine.model().path().display().to_string();
        let reason = format!("embeds whole texts, which {test} is not");
        return Err(GenerateError::Model { model, reason }.into());
    }
    let mut random = Random::new(test.positions() as u64);
    let vocabulary = engine.model().info().vocabulary;
    let mut draw = |n: usize| (0..n).map(|_| random.range(0, vocabulary - 1) as u32).collect::<Vec<_>>();
    // What is compiled and allocated depends on a call's length alone, so the warm-up runs one call of each length.
    let chunk = engine.limits().seq;
    let (whole, rest) = match test.phase {
        Phase::Prefill => (test.tokens.min(chunk), test.tokens % chunk),
        Phase::Decode => (1, 0),
    };
    for length in [whole, rest].into_iter().take(if rest == whole { 1 } else { 2 }).filter(|length| *length > 0) {
        engine.reset();
        call(engine, &draw(length))?;
    }
    let mut times = Vec::with_capacity(repetitions);
    for done in 1..=repetitions {
        engine.reset();
        if test.depth > 0 {
            engine.feed(&draw(test.depth))?;
        }
        let tokens = draw(test.tokens);
        let calls = match test.phase {
            Phase::Prefill => tokens.chunks(test.tokens.max(1)),
            Phase::Decode => tokens.chunks(1),
        };
        let started = Instant::now();
        for tokens in calls {
            call(engine, tokens)?;
        }
        times.push(started.elapsed());
        progress(done);
    }
    Ok(Timing { test, times })
}

fn call(engine: &mut Engine, tokens: &[u32]) -> Result<()> {
    Ok(if engine.model().info().generates { engine.feed(tokens) } else { engine.embed(tokens) }.map(drop)?)
}

/// The largest resident memory of this process so far in bytes, mapped files included; `None` on systems that do not
/// report it.
#[doc(hidden)]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_as_llama_bench_names_them() {
        let name = |phase, tokens, depth| Test { phase, tokens, depth }.to_string();
        assert_eq!(name(Phase::Prefill, 512, 0), "pp512");
        assert_eq!(name(Phase::Decode, 128, 0), "tg128");
        assert_eq!(name(Phase::Prefill, 512, 4096), "pp512 @ d4096");
    }

    #[test]
    fn the_deviation_is_the_samples() {
        assert_eq!(mean_and_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), (5.0, (32.0f64 / 7.0).sqrt()));
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        let test = Test { phase: Phase::Decode, tokens: 10, depth: 0 };
        let timing = Timing { test, times: vec![Duration::from_secs(2), Duration::from_secs(5)] };
        assert_eq!(timing.rates(), [5.0, 2.0]);
    }
}
