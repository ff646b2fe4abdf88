//! One answer: generates tokens one by one and turns them into text, until the answer ends.
//!
//! It deliberately knows no conversation: it takes ids and returns text. Read `mod.rs` for where the ids come from.

use crate::error::Result;

use crate::generate::{Engine, GenerateOptions};
use crate::session::SessionError;
use crate::text::{FinishReason, Output, Sampler, Sampling, Tokenizer};
use std::time::{Duration, Instant};

/// The settings of an answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerationRequest {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The length of the answer, and which tokens end it.
    pub options: GenerateOptions,
    /// Stop strings: texts that end the answer and are not part of it.
    pub stops: Vec<String>,
    /// Whether the text continues the prompt's text, as a completion does, so that joining both gives one text. An
    /// answer in a conversation begins a new text; there many tokenizers drop the leading space.
    pub continues: bool,
}

impl GenerationRequest {
    /// The settings of an answer in a conversation, with tokens chosen by `sampling` and the ends of `options`.
    pub fn new(sampling: Sampling, options: GenerateOptions) -> GenerationRequest {
        GenerationRequest { sampling, options, stops: Vec::new(), continues: false }
    }

    /// The same, with these stop strings.
    pub fn stops(self, stops: Vec<String>) -> GenerationRequest {
        GenerationRequest { stops, ..self }
    }

    /// The same, for a completion of the prompt's text.
    pub fn continues(self) -> GenerationRequest {
        GenerationRequest { continues: true, ..self }
    }
}

/// The part of an answer that one token adds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Piece<'a> {
    /// The token, and the logits that it was chosen from. `None` for text that was held back until the end.
    pub token: Option<(u32, &'a [f32])>,
    /// The text that has become final. Text that may be the beginning of a stop string follows later.
    pub text: &'a str,
}

/// An answer, with its counts and times.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The number of tokens in the prompt.
    pub prompt: usize,
    /// How many of these the cache already held.
    pub cached: usize,
    /// The time until the logits of the first token.
    pub prefill: Duration,
    /// The time from then on.
    pub decode: Duration,
}

/// Continues `ids`, of which the engine already holds the first [`Engine::past`], and passes the text to `each`.
///
/// Errors when the sampling settings are invalid, and as [`Engine::generate`].
pub fn answer(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    ids: &[u32],
    request: &GenerationRequest,
    mut each: impl FnMut(Piece<'_>),
) -> Result<Answer> {
    let cached = engine.past().min(ids.len());
    let (known, fresh) = ids.split_at(cached);
    let mut sampler = Sampler::new(request.sampling)?;
    sampler.accept(known);
    let mut output = output(tokenizer, ids, request)?;
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let started = Instant::now();
    let mut generated = engine.generate(fresh, sampler, &request.options)?;
    let prefill = started.elapsed();
    while !output.stopped() {
        let Some(token) = generated.next().transpose()? else { break };
        let piece = output.push(token)?;
        tokens.push(token);
        text.push_str(&piece);
        each(Piece { token: Some((token, generated.logits())), text: &piece });
    }
    let rest = output.finish()?;
    if !rest.is_empty() {
        text.push_str(&rest);
        each(Piece { token: None, text: &rest });
    }
    let finish_reason = finish_reason(&output, generated.finish_reason())?;
    let decode = started.elapsed() - prefill;
    Ok(Answer { text, tokens, finish_reason, prompt: ids.len(), cached, prefill, decode })
}

fn output(tokenizer: &Tokenizer, prompt: &[u32], request: &GenerationRequest) -> Result<Output> {
    match request.continues {
        true => Ok(Output::after(tokenizer, prompt, &request.stops)?),
        false => Ok(Output::new(tokenizer, &request.stops)),
    }
}

/// Why a text ended: a stop string was found, or the engine gave the reason why it produces no more tokens.
fn finish_reason(output: &Output, engine: Option<&FinishReason>) -> Result<FinishReason> {
    let stopped = output.stopped_by().map(|stop| FinishReason::StopText(stop.to_string()));
    // An engine that gives neither a token nor a reason has failed earlier.
    stopped.or(engine.cloned()).ok_or_else(|| SessionError::Ended.into())
}

/// Continues several prompts at once, with one call per token. The times in the answers are those of all prompts
/// together.
///
/// Calls `done` with the number of tokens so far. Every prompt draws from the given seed, so that its answer does not
/// depend on the other prompts. Errors as [`Engine::generate_all`].
#[doc(hidden)]
pub fn answers(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
    request: &GenerationRequest,
    mut done: impl FnMut(usize),
) -> Result<Vec<Answer>> {
    let samplers = prompts.iter().map(|_| Ok(Sampler::new(request.sampling)?)).collect::<Result<_>>()?;
    let texts = prompts.iter().map(|ids| Ok((output(tokenizer, ids, request)?, String::new(), Vec::new())));
    let mut texts: Vec<(Output, String, Vec<u32>)> = texts.collect::<Result<_>>()?;
    let started = Instant::now();
    let mut generated = engine.generate_all(prompts, samplers, &request.options)?;
    let prefill = started.elapsed();
    let mut count = 0;
    while let Some((prompt, token)) = generated.next().transpose()? {
        let (output, text, tokens) = &mut texts[prompt];
        text.push_str(&output.push(token)?);
        tokens.push(token);
        if output.stopped() {
            generated.end(prompt);
        }
        count += 1;
        done(count);
    }
    let decode = started.elapsed() - prefill;
    let finished = texts.into_iter().zip(prompts).enumerate().map(|(number, ((mut output, text, tokens), prompt))| {
        let text = text + &output.finish()?;
        let finish_reason = finish_reason(&output, generated.finish_reason(number))?;
        Ok(Answer { text, tokens, finish_reason, prompt: prompt.len(), cached: 0, prefill, decode })
    });
    finished.collect()
}
