//! One answer, token by token: the prompt is fed, and every token that was chosen is fed before the next one is chosen.
//!
//! It deliberately knows no text. Read [`crate::text::Sampler`] for how a token is chosen, and `answers.rs` for several answers
//! at once.

use super::cancel::Cancel;
use super::engine::Engine;
use super::error::GenerateError;
use crate::tensor::Tensor;
use crate::text::{FinishReason, Sampler};

/// How long an answer may become, and what ends it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// The most tokens; 0 only feeds the prompt.
    pub max_tokens: usize,
    /// Whether the answer goes on after an end token of the model.
    pub ignore_end: bool,
    /// Ends the answer from another thread.
    pub cancel: Cancel,
}

impl GenerateOptions {
    /// At most `max_tokens` tokens, ended by the model's end tokens.
    pub fn new(max_tokens: usize) -> GenerateOptions {
        GenerateOptions { max_tokens, ignore_end: false, cancel: Cancel::default() }
    }

    /// The same, with end tokens taken as any others.
    pub fn ignore_end(self) -> GenerateOptions {
        GenerateOptions { ignore_end: true, ..self }
    }

    /// The same, ended by `cancel`.
    pub fn cancel(self, cancel: impl Into<Cancel>) -> GenerateOptions {
        GenerateOptions { cancel: cancel.into(), ..self }
    }
}

impl Engine {
    /// Continues: feeds `prompt` after the [`Engine::past`] tokens that the engine holds, and then yields tokens, each chosen
    /// by `sampler` and fed back. [`Engine::reset`] before it starts a text anew.
    ///
    /// The sampler is told of the prompt, for its penalties, and not of what the engine held before. The answer ends at an end
    /// token (which is not yielded), after `max_tokens`, when the context is full, or when it is cancelled;
    /// [`Tokens::finish_reason`] tells which. Errors as [`Engine::feed`], of the whole prompt.
    ///
    /// # What the engine holds afterwards
    ///
    /// A token is fed when the next one is asked for: wherever the iterator is dropped, and when a step fails, the engine holds
    /// the prompt and all tokens yielded but the last. A cancellation is looked for before every chunk of the prompt and before
    /// every token; one that comes before the prompt is fed whole leaves what the engine held before the call.
    pub fn generate<'a>(
        &'a mut self,
        prompt: &[u32],
        mut sampler: Sampler,
        options: &GenerateOptions,
    ) -> Result<Tokens<'a>, GenerateError> {
        self.check(prompt, self.past)?;
        sampler.accept(prompt);
        let before = self.past;
        let (mut logits, mut finished) = (Vec::new(), None);
        for chunk in prompt.chunks(self.limits().seq) {
            if options.cancel.is_cancelled() {
                (logits, finished) = (Vec::new(), Some(FinishReason::Cancelled));
                self.past = before;
                break;
            }
            let fed = self.feed(chunk).and_then(last_row);
            logits = fed.inspect_err(|_| self.past = before)?;
        }
        let (left, over, options) = (options.max_tokens, finished.is_some(), options.clone());
        Ok(Tokens { engine: self, logits, fresh: None, left, sampler, options, over, finished })
    }
}

/// The logits of the last position.
fn last_row(logits: Tensor) -> Result<Vec<f32>, GenerateError> {
    let width = logits.shape().last().copied().unwrap_or(0);
    let values = logits.as_f32()?;
    Ok(values[values.len() - width.min(values.len())..].to_vec())
}

/// The tokens of one generation.
pub struct Tokens<'a> {
    engine: &'a mut Engine,
    /// The logits after what the engine holds.
    logits: Vec<f32>,
    /// The token yielded last. It is fed when the next one is asked for.
    fresh: Option<u32>,
    left: usize,
    sampler: Sampler,
    options: GenerateOptions,
    over: bool,
    finished: Option<FinishReason>,
}

impl Tokens<'_> {
    /// Why there are no more tokens; `None` until the iterator has ended, and after an error.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.finished.as_ref()
    }

    /// The logits that the last token was chosen from, as the model gave them; empty before the first.
    #[doc(hidden)]
    pub fn logits(&self) -> &[f32] {
        if self.fresh.is_some() { &self.logits } else { &[] }
    }

    /// The next token; where there is no more, the reason that the text ended.
    fn step(&mut self) -> Result<Result<u32, FinishReason>, GenerateError> {
        if self.left == 0 {
            return Ok(Err(FinishReason::Length));
        }
        if self.options.cancel.is_cancelled() {
            return Ok(Err(FinishReason::Cancelled));
        }
        if let Some(token) = self.fresh {
            if self.engine.past >= self.engine.limits().capacity {
                return Ok(Err(FinishReason::Context));
            }
            self.logits = self.engine.feed(&[token]).and_then(last_row)?;
        }
        let token = self.sampler.sample(&self.logits)?;
        if !self.options.ignore_end && self.engine.model.info().end_tokens.contains(&token) {
            return Ok(Err(FinishReason::EndToken(token)));
        }
        self.left -= 1;
        self.fresh = Some(token);
        Ok(Ok(token))
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<u32, GenerateError>;

    /// The next token, or the error that kept it from being chosen, after which there is nothing more.
    fn next(&mut self) -> Option<Result<u32, GenerateError>> {
        if self.over {
            return None;
        }
        let next = match self.step() {
            Ok(Ok(token)) => return Some(Ok(token)),
            Ok(Err(reason)) => {
                self.finished = Some(reason);
                None
            }
            Err(error) => Some(Err(error)),
        };
        self.over = true;
        next
    }
}
