//! Tokens: a model on its devices, prompts in, tokens or embeddings out.
//!
//! It feeds a [`Session`] chunk by chunk and step by step, and deliberately knows no text: ids in, ids out. Read
//! [`crate::text`] for the tokenizer and the sampler, [`crate::verify`] for the proof.

use crate::device::Device;
use crate::error::{Error, GraphError, Result, SessionError};
use crate::graph::Weights;
use crate::import::{Model, ModelInfo, Pooling};
use crate::plan::Plan;
use crate::program::{Program, Room, lower};
use crate::session::{NotFinite, Options, RankReport, Session, Tensors};
use crate::tensor::{DType, Env, Limits, Region, Tensor};
use crate::text::{FinishReason, Sampler};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod batch;
mod pace;
#[cfg(feature = "text")]
mod preparer;

pub use batch::{Answers, Text};
pub use pace::{Pace, Rate};
#[cfg(feature = "text")]
pub use preparer::{Prepared, Preparer, Prompt};

use batch::Call;

/// How an [`Engine`] is opened.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Positions the KV cache holds: the longest prompt plus answer.
    pub context: usize,
    /// Most tokens of one call; longer prompts go in several. Fewer where a device cannot hold what so many make in one
    /// piece: [`Engine::limits`] tells. What embeds a text takes it in one call, however long.
    pub chunk: usize,
    /// Most sequences of one call: texts embedded, or prompts answered, at once.
    pub batch: usize,
    /// Whether logits of every prompt position are kept, not just the last's.
    pub all_logits: bool,
    /// How long any wait may last without progress.
    pub deadline: Duration,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { context: 2048, chunk: 256, batch: 1, all_logits: false, deadline: Duration::from_secs(30) }
    }
}

impl EngineOptions {
    /// The largest call on a model: what predicts tokens takes a text in chunks; what embeds it, in one call, since a
    /// pooled chunk is not a part of the pooled text.
    pub fn limits(&self, info: &ModelInfo) -> Limits {
        let capacity = self.context.min(info.context).max(1);
        let batch = self.batch.max(1);
        let seq = if info.generates { self.chunk.clamp(1, capacity) } else { capacity };
        let tokens = if batch > 1 { seq.max(self.chunk).max(batch) } else { seq };
        let each = Env { batch, seq, keep: if self.all_logits { seq } else { 1 }, past: 0, capacity };
        Limits { each, tokens }
    }
}

/// The program of `model` under `plan`, and the largest call it will be given on devices of which `rooms` tells.
///
/// Where the logits of a whole chunk, or another activation, would be larger than the largest tensor of a device, chunks
/// are shorter: a prompt then goes in more of them, and gives the same. What the program needs of each device can be
/// counted from these two before any device is opened. Errors when the plan is for another model.
pub fn prepare(model: &Model, plan: &Plan, options: &EngineOptions, rooms: &[Room]) -> Result<(Program, Limits)> {
    let program = lower(model.graph(), plan)?;
    let of = |chunk: usize| EngineOptions { chunk, ..*options }.limits(model.info());
    let fits = |chunk: usize| {
        let limits = of(chunk);
        program.ranks.iter().zip(rooms).all(|(rank, room)| rank.activations_fit(&limits, room))
    };
    // What embeds takes a text in one call, whatever a chunk is.
    if !model.info().generates || fits(options.chunk) {
        return Ok((program, of(options.chunk)));
    }
    let (mut fitting, mut failing) = (1, options.chunk.max(1));
    while failing - fitting > 1 {
        let middle = fitting + (failing - fitting) / 2;
        if fits(middle) { fitting = middle } else { failing = middle }
    }
    // Kernels take rows in blocks of eight.
    let chunk = if fitting > CHUNK_BLOCK { fitting - fitting % CHUNK_BLOCK } else { fitting };
    let limits = of(chunk);
    Ok((program, limits))
}

/// Chunks that are made shorter have a multiple of this many tokens.
const CHUNK_BLOCK: usize = 8;

/// A model on its devices.
pub struct Engine {
    model: Arc<Model>,
    session: Session,
    past: usize,
    /// The positions of the context that each sequence under way holds: one sequence holds all.
    spans: Vec<Range<usize>>,
    all_logits: bool,
    pace: Pace,
}

impl Engine {
    /// Lowers `plan` and loads every rank's shard onto its device.
    ///
    /// `progress` is told the bytes of each shard as it is loaded. Errors when the plan is for another model or another
    /// number of devices, or when a device lacks memory.
    pub fn open(
        model: Arc<Model>,
        plan: &Plan,
        devices: Vec<Box<dyn Device>>,
        options: EngineOptions,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Engine> {
        let weights = model.clone();
        Engine::with_weights(model, weights, plan, devices, options, progress)
    }

    /// As [`Engine::open`], with the weights of `model`'s graph taken from elsewhere: random ones, or altered ones.
    pub fn with_weights(
        model: Arc<Model>,
        weights: Arc<dyn Weights>,
        plan: &Plan,
        devices: Vec<Box<dyn Device>>,
        options: EngineOptions,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Engine> {
        let room = |(i, device): (usize, &dyn Device)| Room {
            largest: device.largest_tensor(),
            ..Room::new(device.name(), None, i)
        };
        let rooms: Vec<Room> = devices.iter().map(AsRef::as_ref).enumerate().map(room).collect();
        let (program, limits) = prepare(&model, plan, &options, &rooms)?;
        program.check(&limits, &rooms)?;
        let session_options = Options { limits, deadline: options.deadline };
        let session = Session::open(program, devices, weights, session_options, progress)?;
        let spans = alone(&limits);
        Ok(Engine { model, session, past: 0, spans, all_logits: options.all_logits, pace: Pace::default() })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Positions in the KV cache.
    pub fn past(&self) -> usize {
        self.past
    }

    /// What it was opened for.
    pub fn limits(&self) -> &Limits {
        self.session.limits()
    }

    /// Forgets all positions.
    pub fn reset(&mut self) {
        self.past = 0;
        self.spans = alone(self.limits());
    }

    /// Forgets all positions from `to` on, so that what is fed next comes after the first `to` tokens.
    ///
    /// Nothing moves: the cache keeps its keys and values in place, and later ones are written over. Returns how many
    /// positions are left, which are fewer than `to` where there were fewer.
    pub fn rewind(&mut self, to: usize) -> usize {
        self.past = self.past.min(to);
        self.past
    }

    /// How long the calls so far took, of shapes whose kernels had been compiled by an earlier one.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What happened on every rank so far.
    pub fn report(&mut self) -> Result<Vec<RankReport>> {
        self.session.report()
    }

    /// Feeds `tokens` in chunks and returns the logits of the last position, or of every one where the engine was
    /// opened for them: `[positions, vocabulary]`.
    ///
    /// Errors when there is no token, one is outside the vocabulary, or the context is full.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Tensor> {
        self.require("logits", "predicts no tokens; use `embed`")?;
        self.check(tokens)?;
        let mut rows: Vec<f32> = Vec::new();
        let mut width = 0;
        for chunk in tokens.chunks(self.limits().seq) {
            let logits = self.call(&Call::of(chunk.to_vec(), self.spans.clone()), "logits")?;
            width = logits.shape().last().copied().unwrap_or(1).max(1);
            if !self.all_logits {
                rows.clear();
            }
            rows.extend_from_slice(logits.as_f32()?);
        }
        Tensor::f32([rows.len() / width, width], rows)
    }

    /// The model's last hidden states for `tokens` alone: `[positions, hidden]`, or `[1, hidden]` where the graph pools.
    ///
    /// A pooled one is scaled to length 1 and cut to its first dimensions where the folder says so. Errors when there is
    /// no token, one is outside the vocabulary, or there are more than the context.
    pub fn embed(&mut self, tokens: &[u32]) -> Result<Tensor> {
        let mut all = self.embed_all(&[Text::from(tokens.to_vec())], |_| ())?;
        all.pop().ok_or_else(|| SessionError::EmptyPrompt.into())
    }

    /// As [`Engine::embed`], of many texts, several to a call where the engine was opened for it: those of like length
    /// together, padded, and each as if it were alone. `done` is told how many are done.
    pub fn embed_all(&mut self, texts: &[Text], done: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        self.require("hidden", "was opened to predict tokens, not to embed")?;
        let hidden = self.encode_all(texts, "hidden", done)?;
        let info = self.model.info();
        if info.pooling == Pooling::None {
            return Ok(hidden);
        }
        let scaled = |tensor| if info.normalize { normalized(tensor) } else { Ok(tensor) };
        hidden.into_iter().map(|tensor| kept(scaled(tensor)?, info.dimensions)).collect()
    }

    /// The logits of the classification head for `tokens` alone, `[1, labels]`. What makes scores of them is told by
    /// [`ModelInfo::scores`].
    ///
    /// `types` tells the texts of a pair apart, as [`encode_pair`](crate::text::Tokenizer::encode_pair) gives them; empty
    /// where there is one text. Errors when the model has no such head, there is no token, one or a type is outside
    /// what the model knows, or there are more than the context.
    pub fn scores(&mut self, tokens: &[u32], types: &[u32]) -> Result<Tensor> {
        self.require("scores", "has no classification head")?;
        let text = Text { tokens: tokens.to_vec(), types: types.to_vec(), ..Text::default() };
        let mut all = self.scores_all(&[text], |_| ())?;
        all.pop().ok_or_else(|| SessionError::EmptyPrompt.into())
    }

    /// As [`Engine::scores`], of many texts or pairs, several to a call where the engine was opened for it. `done` is told
    /// how many are done.
    pub fn scores_all(&mut self, texts: &[Text], done: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        self.require("scores", "has no classification head")?;
        self.encode_all(texts, "scores", done)
    }

    fn require(&self, output: &str, reason: &str) -> Result<()> {
        if self.model.graph().outputs().iter().any(|(name, _)| name == output) {
            return Ok(());
        }
        let model = self.model.path().display().to_string();
        Err(SessionError::Model { model, reason: reason.to_string() }.into())
    }

    /// Every output of the graph for `tokens`, by name, in one call that starts the context anew.
    ///
    /// Errors as [`Engine::feed`], and when the tokens are more than one call takes.
    pub fn outputs(&mut self, tokens: &[u32]) -> Result<Tensors> {
        self.reset();
        self.check(tokens)?;
        // What pools a text has to know where it ends; what goes on after it has the whole context.
        let call = match self.model.info().generates {
            true => Call::of(tokens.to_vec(), self.spans.clone()),
            false => Call::padded(&[&Text::from(tokens.to_vec())], tokens.len()),
        };
        self.call_all(&call)
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let info = self.model.info();
        if tokens.is_empty() {
            return Err(SessionError::EmptyPrompt.into());
        }
        if let Some(&token) = tokens.iter().find(|t| **t as usize >= info.vocabulary) {
            return Err(SessionError::Token { token, vocabulary: info.vocabulary }.into());
        }
        let (total, capacity) = (self.past.saturating_add(tokens.len()), self.limits().capacity);
        if total > capacity {
            return Err(SessionError::Context { tokens: total, capacity, limit: Some(info.context) }.into());
        }
        Ok(())
    }

    /// One output of a call.
    fn call(&mut self, call: &Call, output: &str) -> Result<Tensor> {
        self.call_all(call)?.remove(output).ok_or_else(|| {
            let (name, problem) = (output.to_string(), "does not exist");
            Error::from(GraphError::Name { kind: "output", name, problem })
        })
    }

    /// The call's value of every input of the graph.
    fn inputs(&self, call: &Call) -> Result<Tensors> {
        let info = self.model.info();
        let value = |name: &str| call.input(name, self.past, info.first_position, info.pooling);
        let ports = self.session.program().inputs.iter();
        ports.map(|port| Ok((port.name.clone(), value(&port.name)?))).collect()
    }

    /// Every output of a call. Errors when one is no finite number, with the node where that began.
    fn call_all(&mut self, call: &Call) -> Result<Tensors> {
        let keep = if self.all_logits { call.seq } else { 1 };
        let (batch, capacity) = (call.rows(), self.limits().capacity);
        let env = Env { batch, seq: call.seq, keep, past: self.past, capacity };
        let started = Instant::now();
        let outputs = self.session.run(env, self.inputs(call)?)?;
        self.pace.note([batch, call.seq, keep], call.tokens_after(self.past), started.elapsed());
        for (output, tensor) in outputs.iter().filter(|(_, tensor)| tensor.dtype() == DType::F32) {
            if let Some(&value) = tensor.as_f32()?.iter().find(|value| !value.is_finite()) {
                let output = output.clone();
                let inputs = self.inputs(call)?;
                return Err(match self.session.first_not_finite(env, inputs)? {
                    Some(NotFinite { rank, device, node, value, .. }) => {
                        SessionError::NotFinite { output, rank, device, node, value }
                    }
                    // Only a device whose answers change from call to call gets here.
                    None => SessionError::Input { name: output, reason: format!("was {value} once, and not again") },
                }
                .into());
            }
        }
        self.past += call.seq;
        Ok(outputs)
    }

    /// Feeds `prompt` and then yields up to `most` tokens, each chosen by `sampler` and fed back.
    ///
    /// [`Tokens::finish_reason`] tells afterwards why there are no more.
    /// The sampler is told of the prompt, for its penalties. Ends at an end token (which is not yielded) unless
    /// `ignore_end`, when the context is full, or when `stop` is set, which is looked at before every chunk of the
    /// prompt and before every token.
    pub fn generate<'a>(
        &'a mut self,
        prompt: &[u32],
        most: usize,
        mut sampler: Sampler,
        ignore_end: bool,
        stop: Arc<AtomicBool>,
    ) -> Result<Tokens<'a>> {
        self.check(prompt)?;
        sampler.accept(prompt);
        let mut logits = None;
        for chunk in prompt.chunks(self.limits().seq) {
            if stop.load(Ordering::Relaxed) {
                logits = None;
                break;
            }
            logits = Some(last_row(self.feed(chunk)?)?);
        }
        let (chosen_from, finished) = (Vec::new(), None);
        Ok(Tokens { engine: self, logits, chosen_from, left: most, sampler, ignore_end, stop, finished })
    }
}

/// One sequence, which holds the whole context.
fn alone(limits: &Limits) -> Vec<Range<usize>> {
    std::iter::once(0..limits.capacity).collect()
}

/// Rows scaled to length 1.
fn normalized(tensor: Tensor) -> Result<Tensor> {
    let width = tensor.shape().last().copied().unwrap_or(1).max(1);
    let mut values = tensor.as_f32()?.to_vec();
    for row in values.chunks_mut(width) {
        let norm = row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x = (*x as f64 / norm) as f32);
    }
    Tensor::f32(tensor.shape().to_vec(), values)
}

/// The first `dimensions` of each row, or all of them.
fn kept(tensor: Tensor, dimensions: Option<usize>) -> Result<Tensor> {
    let width = tensor.shape().last().copied().unwrap_or(0);
    match dimensions.filter(|&kept| kept < width) {
        Some(kept) => {
            let mut region = Region::whole(tensor.shape());
            region.0[tensor.shape().len() - 1] = 0..kept;
            tensor.slice(&region)
        }
        None => Ok(tensor),
    }
}

fn last_row(logits: Tensor) -> Result<Vec<f32>> {
    let width = logits.shape().last().copied().unwrap_or(0);
    let values = logits.as_f32()?;
    Ok(values[values.len() - width.min(values.len())..].to_vec())
}

/// The tokens of one generation.
pub struct Tokens<'a> {
    engine: &'a mut Engine,
    logits: Option<Vec<f32>>,
    chosen_from: Vec<f32>,
    left: usize,
    sampler: Sampler,
    ignore_end: bool,
    stop: Arc<AtomicBool>,
    finished: Option<FinishReason>,
}

impl Tokens<'_> {
    /// Why there are no more tokens; `None` until the iterator has ended, and after an error.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.finished.as_ref()
    }

    /// The logits that the last token was chosen from, as the model gave them; empty before the first.
    pub fn logits(&self) -> &[f32] {
        &self.chosen_from
    }

    fn finish<T>(&mut self, reason: FinishReason) -> Option<T> {
        self.finished = Some(reason);
        None
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.finished.is_some() {
            return None;
        }
        if self.left == 0 {
            return self.finish(FinishReason::Length);
        }
        if self.stop.load(Ordering::Relaxed) {
            return self.finish(FinishReason::Interrupted);
        }
        let full = self.engine.past >= self.engine.limits().capacity;
        let Some(logits) = &self.logits else {
            // Without logits the last step either failed, or was not made because the context is full.
            return if full { self.finish(FinishReason::Context) } else { None };
        };
        let token = match self.sampler.sample(logits) {
            Ok(token) => token,
            Err(error) => {
                self.logits = None;
                return Some(Err(error));
            }
        };
        if !self.ignore_end && self.engine.model.info().end_tokens.contains(&token) {
            self.logits = None;
            return self.finish(FinishReason::EndToken(token));
        }
        self.left -= 1;
        self.chosen_from = self.logits.take().unwrap_or_default();
        if self.left > 0 && !full {
            match self.engine.feed(&[token]).and_then(last_row) {
                Ok(logits) => self.logits = Some(logits),
                // The token was chosen before the failure: it is still the caller's, the error comes next.
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(token))
    }
}
