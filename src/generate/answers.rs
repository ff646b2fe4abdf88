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
    /// Answers several prompts at once, in one call per token: `samplers[i]` chooses the tokens that continue `prompts[i]`, and
    /// `options` hold for each of them.
    ///
    /// Unlike [`Engine::generate`] it does not continue: every prompt is the beginning of a text. An answer ends at an end token
    /// (which is not yielded), after `max_tokens`, or by [`Answers::end`]. All answers end when the context is full, which the
    /// longest prompt decides, since the others are padded to it; and when they are cancelled, which is looked for before
    /// every chunk of the prompts and before every token. [`Answers::finish_reason`] tells which.
    ///
    /// The engine holds nothing from this call on, however the answers end.
    ///
    /// Errors as [`Engine::feed`], and when there are more prompts than [`Engine::limits`] allows or not as many samplers as
    /// prompts. One prompt that is refused refuses them all, and the engine then holds what it held before.
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

/// One of several answers.
struct Row {
    sampler: Sampler,
    /// The logits from which the next token is chosen; empty until the last one was fed.
    logits: Vec<f32>,
    /// How many more tokens may be chosen; 0 once the answer has ended.
    left: usize,
    /// The token chosen last. An answer that has ended goes on feeding it, because a call has a fixed number of rows.
    last: u32,
    /// Why the answer has ended.
    finished: Option<FinishReason>,
}

impl Row {
    fn finish(&mut self, reason: FinishReason) {
        self.left = 0;
        self.finished.get_or_insert(reason);
    }
}

/// The tokens of several answers as they are chosen: `(number of the prompt, token)`.
///
/// The engine itself holds nothing meanwhile ([`Engine::past`] is 0): what several prompts left in the KV cache is no text that
/// could be continued.
pub struct Answers<'a> {
    engine: &'a mut Engine,
    rows: Vec<Row>,
    /// For each prompt the positions of the context that are its own. Those before are padding.
    spans: Vec<Range<usize>>,
    /// Positions of the context in use.
    past: usize,
    /// Tokens that were chosen and not yet yielded.
    ready: VecDeque<(usize, u32)>,
    /// The error that ends all answers, yielded after the tokens that are ready.
    failed: Option<GenerateError>,
    options: GenerateOptions,
}

impl Answers<'_> {
    /// Ends the answer to `prompts[prompt]`: no more of its tokens are yielded, and it counts as cancelled unless it had ended
    /// before.
    #[doc(hidden)]
    pub fn end(&mut self, prompt: usize) {
        if let Some(row) = self.rows.get_mut(prompt) {
            row.finish(FinishReason::Cancelled);
        }
        self.ready.retain(|(number, _)| *number != prompt);
    }

    /// Why the answer to `prompts[prompt]` has no more tokens; `None` while it goes on, and after an error.
    #[doc(hidden)]
    pub fn finish_reason(&self, prompt: usize) -> Option<&FinishReason> {
        self.rows.get(prompt)?.finished.as_ref()
    }

    /// Ends all answers that have not ended yet.
    fn finish_all(&mut self, reason: FinishReason) {
        self.rows.iter_mut().filter(|row| row.left > 0).for_each(|row| row.finish(reason.clone()));
    }

    /// Feeds the tokens chosen last, unless the prompts were fed last, and chooses the next one of every answer that goes on.
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
