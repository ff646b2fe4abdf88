//! One answer: tokens generated one by one and told as text, until something ends it.
//!
//! It deliberately knows no conversation: ids in, text out. Read `mod.rs` for where the ids come from.

use crate::error::Result;

use crate::generate::{Engine, GenerateOptions};
use crate::session::SessionError;
use crate::text::{FinishReason, Output, Sampler, Sampling, Tokenizer};
use std::time::{Duration, Instant};

/// How an answer is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerationRequest {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// How many tokens it may have, and what ends it.
    pub options: GenerateOptions,
    /// Texts that end it and are not part of it.
    pub stops: Vec<String>,
    /// Whether its text continues the prompt's, as a completion does, so that both joined are one text. An answer in a
    /// conversation begins a text of its own: many tokenizers drop the space that a text begins with.
    pub continues: bool,
}

impl GenerationRequest {
    /// An answer of tokens chosen as `sampling` says, ended as `options` say, as one begins in a conversation.
    pub fn new(sampling: Sampling, options: GenerateOptions) -> GenerationRequest {
        GenerationRequest { sampling, options, stops: Vec::new(), continues: false }
    }

    /// The same, ended before any of these texts.
    pub fn stops(self, stops: Vec<String>) -> GenerationRequest {
        GenerationRequest { stops, ..self }
    }

    /// The same, as a completion of the prompt's text.
    pub fn continues(self) -> GenerationRequest {
        GenerationRequest { continues: true, ..self }
    }
}

/// What one token adds to an answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Piece<'a> {
    /// The token, and the logits that it was chosen from; none for text that was held back until the end.
    pub token: Option<(u32, &'a [f32])>,
    /// The text that has become final. What could be the beginning of a stop string comes later.
    pub text: &'a str,
}

/// An answer, and what it took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens that it answers.
    pub prompt: usize,
    /// How many of these were in the cache.
    pub cached: usize,
    /// Time to the first token's logits.
    pub prefill: Duration,
    /// Time of all that came after.
    pub decode: Duration,
}

/// Continues `ids`, of which the engine holds the first [`Engine::past`] already, and hands the text to `each`.
///
/// Errors when the settings of sampling are senseless, and as [`Engine::generate`].
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

/// Why a text ended: a stop text was met, or the engine has said why it gives no more tokens.
fn finish_reason(output: &Output, engine: Option<&FinishReason>) -> Result<FinishReason> {
    let stopped = output.stopped_by().map(|stop| FinishReason::StopText(stop.to_string()));
    // An engine that gives no tokens and no reason has failed before.
    stopped.or(engine.cloned()).ok_or_else(|| SessionError::Ended.into())
}

/// Continues several prompts at once, in one call per token. The times in the answers are those of all together.
///
/// `done` is told how many tokens there are so far. Every prompt draws from the seed asked for, so that its answer does not depend
/// on its company. Errors as [`Engine::generate_all`].
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
