//! Several answers at once: one call a token for all prompts together.
//!
//! Prompts are padded on the left, so that all answers begin at the same position. Nothing here knows text: ids in, ids out. Read
//! `tokens.rs` first, which generates one answer.

use super::call::PaddedCall;
use super::engine::Engine;
use super::error::GenerateError;
use super::tokens::GenerateOptions;
use crate::session::SessionError;
use crate::text::{FinishReason, Sampler};
use std::collections::VecDeque;
use std::ops::Range;

impl Engine {
    /// Answers several prompts at once, each from the beginning: feeds them, and then yields tokens of each as they come, with
    /// the number of the prompt.
    ///
    /// There is one sampler to a prompt. A prompt's answer ends at an end token (which is not yielded) or after `max_tokens`;
    /// all end when the context is full, or when they are cancelled, which is looked for before every chunk of the prompts and
    /// before every token. The longest prompt decides what fits the context, since the others are padded to it. Starts the
    /// context anew, and the engine holds nothing after it, however it ends. Errors as [`Engine::feed`], and when there are more prompts than the engine was opened for or not as
    /// many samplers; a prompt that is refused refuses them all, before any is fed.
    pub fn generate_all<'a>(
        &'a mut self,
        prompts: &[Vec<u32>],
        samplers: Vec<Sampler>,
        options: &GenerateOptions,
    ) -> Result<Answers<'a>, GenerateError> {
        self.require("logits", "predicts no tokens; use `embed`")?;
        let limits = *self.limits();
        let batch = prompts.len();
        if batch == 0 || batch > limits.batch || samplers.len() != batch {
            let name = "batch".to_string();
            let reason =
                format!("{batch} prompts and {} samplers, the engine takes {} at most", samplers.len(), limits.batch);
            return Err(SessionError::Input { name, reason }.into());
        }
        prompts.iter().try_for_each(|prompt| self.check(prompt, 0))?;
        self.reset();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let spans: Vec<_> = prompts.iter().map(|prompt| longest - prompt.len()..limits.capacity).collect();
        let step = (limits.tokens / batch).clamp(1, limits.seq);
        let (mut logits, mut cancelled) = (Vec::new(), false);
        for start in (0..longest).step_by(step) {
            cancelled = options.cancel.is_cancelled();
            if cancelled {
                logits = vec![Vec::new(); batch];
                break;
            }
            let columns = start..(start + step).min(longest);
            let padded = |prompt: &Vec<u32>, at: usize| {
                (at + prompt.len()).checked_sub(longest).map_or(0, |token| prompt[token])
            };
            let tokens = prompts.iter().flat_map(|prompt| columns.clone().map(move |at| padded(prompt, at)));
            logits = self.next_logits(PaddedCall::of(tokens.collect(), spans.clone(), start))?;
        }
        let max = options.max_tokens;
        let row = |((mut sampler, prompt), logits): ((Sampler, &Vec<u32>), Vec<f32>)| {
            sampler.accept(prompt);
            Row { sampler, logits, left: max, last: 0, finished: (max == 0).then_some(FinishReason::Length) }
        };
        let rows = samplers.into_iter().zip(prompts).zip(logits).map(row).collect();
        let options = options.clone();
        let ready = VecDeque::new();
        let mut answers = Answers { engine: self, rows, spans, past: longest, ready, failed: None, options };
        if cancelled {
            answers.finish_all(FinishReason::Cancelled);
        }
        Ok(answers)
    }

    /// Feeds every row its next tokens, and returns each row's logits of the last.
    fn next_logits(&mut self, call: PaddedCall) -> Result<Vec<Vec<f32>>, GenerateError> {
        let logits = self.call(&call, "logits")?;
        let width = logits.shape().last().copied().unwrap_or(1).max(1);
        let each = logits.as_f32()?.chunks(logits.as_f32()?.len() / call.rows().max(1));
        Ok(each.map(|row| row[row.len() - width..].to_vec()).collect())
    }
}

/// One prompt under way.
struct Row {
    sampler: Sampler,
    logits: Vec<f32>,
    left: usize,
    last: u32,
    /// Why it has ended, once it has.
    finished: Option<FinishReason>,
}

impl Row {
    fn finish(&mut self, reason: FinishReason) {
        self.left = 0;
        self.finished.get_or_insert(reason);
    }
}

/// The tokens of several answers: `(number of the prompt, token)`.
///
/// What is in the cache is known here alone: the engine holds nothing all the while, since nothing can be fed after several
/// prompts as if they were one.
pub struct Answers<'a> {
    engine: &'a mut Engine,
    rows: Vec<Row>,
    /// The positions of the context that each row holds.
    spans: Vec<Range<usize>>,
    /// Positions of the context in use.
    past: usize,
    ready: VecDeque<(usize, u32)>,
    /// What ends all answers, once the tokens that are ready are yielded.
    failed: Option<GenerateError>,
    options: GenerateOptions,
}

impl Answers<'_> {
    /// Ends the answer to the prompt of this number: no more of its tokens are yielded.
    #[doc(hidden)]
    pub fn end(&mut self, prompt: usize) {
        if let Some(row) = self.rows.get_mut(prompt) {
            row.finish(FinishReason::Cancelled);
        }
        self.ready.retain(|(number, _)| *number != prompt);
    }

    /// Why the answer to the prompt of this number has no more tokens; `None` while it goes on, and after an error. One that
    /// [`Answers::end`] ended was cancelled.
    pub fn finish_reason(&self, prompt: usize) -> Option<&FinishReason> {
        self.rows.get(prompt)?.finished.as_ref()
    }

    /// Ends all answers that go on.
    fn finish_all(&mut self, reason: FinishReason) {
        self.rows.iter_mut().filter(|row| row.left > 0).for_each(|row| row.finish(reason.clone()));
    }

    /// Draws a token for every answer that goes on, having fed those that were drawn before.
    fn step(&mut self) -> Result<(), GenerateError> {
        if self.rows.iter().all(|row| row.left == 0) {
            return Ok(());
        }
        if self.rows.iter().any(|row| row.logits.is_empty()) {
            if self.past >= self.engine.limits().capacity {
                self.finish_all(FinishReason::Context);
                return Ok(());
            }
            let next = self.rows.iter().map(|row| row.last).collect();
            let call = PaddedCall::of(next, self.spans.clone(), self.past);
            for (row, logits) in self.rows.iter_mut().zip(self.engine.next_logits(call)?) {
                row.logits = logits;
            }
            self.past += 1;
        }
        for (n, row) in self.rows.iter_mut().enumerate() {
            let logits = std::mem::take(&mut row.logits);
            if row.left == 0 {
                continue;
            }
            row.last = row.sampler.sample(&logits)?;
            if !self.options.ignore_end && self.engine.model.info().end_tokens.contains(&row.last) {
                row.finish(FinishReason::EndToken(row.last));
                continue;
            }
            row.left -= 1;
            if row.left == 0 {
                row.finish(FinishReason::Length);
            }
            self.ready.push_back((n, row.last));
        }
        Ok(())
    }
}

impl Iterator for Answers<'_> {
    type Item = Result<(usize, u32), GenerateError>;

    /// The next token, or the error that kept the next ones from being chosen, after which there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && self.rows.iter().any(|row| row.left > 0) {
            if self.options.cancel.is_cancelled() {
                self.finish_all(FinishReason::Cancelled);
                return None;
            }
            if let Err(error) = self.step() {
                self.rows.iter_mut().for_each(|row| row.left = 0);
                self.failed = Some(error);
            }
        }
        self.ready.pop_front().map(Ok).or_else(|| self.failed.take().map(Err))
    }
}
