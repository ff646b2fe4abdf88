//! Tokens: a model on its devices, prompts in, tokens or embeddings out.
//!
//! It feeds a [`Session`] chunk by chunk and step by step, and deliberately knows no text: ids in, ids out. Read
//! [`crate::text`] for the tokenizer and the sampler, [`crate::proof`] for the proof.

use crate::device::Device;
use crate::model::{Model, ModelInfo, Pooling};
use crate::plan::Plan;
use crate::program::{Program, Room, lower};
use crate::session::SessionError;
use crate::session::{NotFinite, Options, RankReport, Session, Tensors};
use crate::shape::{Env, Limits};
use crate::tensor::{DType, Region, Tensor};
use crate::text::{FinishReason, Sampler};
use crate::weights::Weights;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod error;

pub use error::GenerateError;

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
pub fn prepare(
    model: &Model,
    plan: &Plan,
    options: &EngineOptions,
    rooms: &[Room],
) -> Result<(Program, Limits), GenerateError> {
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
///
/// It holds one sequence of tokens, whose keys and values are in the KV cache; [`Engine::past`] says how many.
///
/// **After an error** of any method the engine holds what it held before the call, or nothing where the method says that it
/// starts the context anew, and the next call gives what it would give on an engine that never failed. The exceptions are
/// errors that end the session (a rank, a device or an exchange failed): every call after one of these is
/// [`SessionError::Ended`], and only a new engine helps.
pub struct Engine {
    model: Arc<Model>,
    session: Session,
    /// The tokens held. Whatever lies in the cache after so many positions is written over before it is read.
    past: usize,
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
    ) -> Result<Engine, GenerateError> {
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
    ) -> Result<Engine, GenerateError> {
        let room = |(i, device): (usize, &dyn Device)| Room {
            largest: device.largest_tensor(),
            ..Room::new(device.name(), None, i)
        };
        let rooms: Vec<Room> = devices.iter().map(AsRef::as_ref).enumerate().map(room).collect();
        let (program, limits) = prepare(&model, plan, &options, &rooms)?;
        program.check(&limits, &rooms)?;
        let session_options = Options::new(limits).deadline(options.deadline);
        let session = Session::open(program, devices, weights, session_options, progress)?;
        Ok(Engine { model, session, past: 0, all_logits: options.all_logits, pace: Pace::default() })
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
    pub fn report(&mut self) -> Result<Vec<RankReport>, GenerateError> {
        Ok(self.session.report()?)
    }

    /// Feeds `tokens` in chunks and returns the logits of the last position, or of every one where the engine was
    /// opened for them: `[positions, vocabulary]`.
    ///
    /// Errors when there is no token, one is outside the vocabulary, or they do not fit the context, or when a logit is no
    /// finite number. The engine then holds what it held before, whichever chunk failed.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Tensor, GenerateError> {
        self.require("logits", "predicts no tokens; use `embed`")?;
        self.check(tokens, self.past)?;
        let mut rows: Vec<f32> = Vec::new();
        let (mut width, mut past) = (0, self.past);
        for chunk in tokens.chunks(self.limits().seq) {
            let logits = self.call(&Call::of(chunk.to_vec(), alone(self.limits()), past), "logits")?;
            past += chunk.len();
            width = logits.shape().last().copied().unwrap_or(1).max(1);
            if !self.all_logits {
                rows.clear();
            }
            rows.extend_from_slice(logits.as_f32()?);
        }
        self.past = past;
        Ok(Tensor::f32([rows.len() / width, width], rows)?)
    }

    /// The model's last hidden states for `tokens` alone: `[positions, hidden]`, or `[1, hidden]` where the graph pools.
    ///
    /// A pooled one is scaled to length 1 and cut to its first dimensions where the folder says so. Starts the context
    /// anew. Errors when there is no token, one is outside the vocabulary, or there are more than the context.
    pub fn embed(&mut self, tokens: &[u32]) -> Result<Tensor, GenerateError> {
        let mut all = self.embed_all(&[Text::from(tokens.to_vec())], |_| ())?;
        all.pop().ok_or_else(|| GenerateError::EmptyPrompt)
    }

    /// As [`Engine::embed`], of many texts, several to a call where the engine was opened for it: those of like length
    /// together, padded, and each as if it were alone. `done` is told how many are done. One text that is refused refuses
    /// them all, before any is embedded.
    pub fn embed_all(&mut self, texts: &[Text], done: impl FnMut(usize)) -> Result<Vec<Tensor>, GenerateError> {
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
    pub fn scores(&mut self, tokens: &[u32], types: &[u32]) -> Result<Tensor, GenerateError> {
        self.require("scores", "has no classification head")?;
        let text = Text { tokens: tokens.to_vec(), types: types.to_vec(), ..Text::default() };
        let mut all = self.scores_all(&[text], |_| ())?;
        all.pop().ok_or_else(|| GenerateError::EmptyPrompt)
    }

    /// As [`Engine::scores`], of many texts or pairs, several to a call where the engine was opened for it. `done` is told
    /// how many are done.
    pub fn scores_all(&mut self, texts: &[Text], done: impl FnMut(usize)) -> Result<Vec<Tensor>, GenerateError> {
        self.require("scores", "has no classification head")?;
        self.encode_all(texts, "scores", done)
    }

    fn require(&self, output: &str, reason: &str) -> Result<(), GenerateError> {
        if self.model.graph().outputs().iter().any(|(name, _)| name == output) {
            return Ok(());
        }
        let model = self.model.path().display().to_string();
        Err(GenerateError::Model { model, reason: reason.to_string() })
    }

    /// Every output of the graph for `tokens`, by name, in one call that starts the context anew.
    ///
    /// Errors as [`Engine::feed`], and when the tokens are more than one call takes.
    pub fn outputs(&mut self, tokens: &[u32]) -> Result<Tensors, GenerateError> {
        self.check(tokens, 0)?;
        self.reset();
        // What pools a text has to know where it ends; what goes on after it has the whole context.
        let call = match self.model.info().generates {
            true => Call::of(tokens.to_vec(), alone(self.limits()), 0),
            false => Call::padded(&[&Text::from(tokens.to_vec())], tokens.len()),
        };
        let outputs = self.call_all(&call)?;
        self.past = tokens.len();
        Ok(outputs)
    }

    /// Errors unless `tokens` can be fed after `past` others.
    fn check(&self, tokens: &[u32], past: usize) -> Result<(), GenerateError> {
        let info = self.model.info();
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if let Some(&token) = tokens.iter().find(|t| **t as usize >= info.vocabulary) {
            return Err(GenerateError::Token { token, vocabulary: info.vocabulary });
        }
        let (total, capacity) = (past.saturating_add(tokens.len()), self.limits().capacity);
        if total > capacity {
            return Err(GenerateError::Context { tokens: total, capacity, limit: Some(info.context) });
        }
        Ok(())
    }

    /// One output of a call.
    fn call(&mut self, call: &Call, output: &str) -> Result<Tensor, GenerateError> {
        let mut outputs = self.call_all(call)?;
        outputs.remove(output).ok_or_else(|| {
            let present = outputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            SessionError::Output { name: output.to_string(), present }.into()
        })
    }

    /// The call's value of every input of the graph.
    fn inputs(&self, call: &Call) -> Result<Tensors, GenerateError> {
        let info = self.model.info();
        let value = |name: &str| call.input(name, info);
        let ports = self.session.program().inputs.iter();
        ports.map(|port| Ok((port.name.clone(), value(&port.name)?))).collect()
    }

    /// Every output of a call. Errors when one is no finite number, with the node where that began. What the engine holds
    /// is the caller's to say, once all of its calls are done.
    fn call_all(&mut self, call: &Call) -> Result<Tensors, GenerateError> {
        let keep = if self.all_logits { call.seq } else { 1 };
        let (batch, capacity) = (call.rows(), self.limits().capacity);
        let env = Env { batch, seq: call.seq, keep, past: call.past, capacity };
        let started = Instant::now();
        let outputs = self.session.run(env, self.inputs(call)?)?;
        self.pace.note([batch, call.seq, keep], call.held(), started.elapsed());
        for (output, tensor) in outputs.iter().filter(|(_, tensor)| tensor.dtype() == DType::F32) {
            if let Some(&value) = tensor.as_f32()?.iter().find(|value| !value.is_finite()) {
                let output = output.clone();
                let inputs = self.inputs(call)?;
                return Err(match self.session.first_not_finite(env, inputs)? {
                    Some(NotFinite { rank, device, node, value, .. }) => {
                        GenerateError::NotFinite { output, rank, device, node, value }
                    }
                    // Only a device whose answers change from call to call gets here.
                    None => {
                        let reason = format!("was {value} once, and not again");
                        SessionError::Input { name: output, reason }.into()
                    }
                });
            }
        }
        Ok(outputs)
    }

    /// Feeds `prompt` and then yields up to `most` tokens, each chosen by `sampler` and fed back.
    ///
    /// [`Tokens::finish_reason`] tells afterwards why there are no more.
    /// The sampler is told of the prompt, for its penalties. Ends at an end token (which is not yielded) unless
    /// `ignore_end`, when the context is full, or when `stop` is set, which is looked at before every chunk of the
    /// prompt and before every token. Errors as [`Engine::feed`], of the whole prompt.
    ///
    /// A token is fed when the next one is asked for. So a step that fails comes after the token before it, and wherever the
    /// iterator is dropped the engine holds the prompt and all tokens yielded but the last.
    pub fn generate<'a>(
        &'a mut self,
        prompt: &[u32],
        max: usize,
        mut sampler: Sampler,
        ignore_end: bool,
        stop: Arc<AtomicBool>,
    ) -> Result<Tokens<'a>, GenerateError> {
        self.check(prompt, self.past)?;
        sampler.accept(prompt);
        let before = self.past;
        let mut logits = Vec::new();
        for chunk in prompt.chunks(self.limits().seq) {
            if stop.load(Ordering::Relaxed) {
                logits.clear();
                break;
            }
            let fed = self.feed(chunk).and_then(last_row);
            logits = fed.inspect_err(|_| self.past = before)?;
        }
        // Without logits the prompt was interrupted.
        let finished = logits.is_empty().then_some(FinishReason::Interrupted);
        let over = finished.is_some();
        Ok(Tokens { engine: self, logits, fresh: None, left: max, sampler, ignore_end, stop, over, finished })
    }
}

/// One sequence, which holds the whole context.
fn alone(limits: &Limits) -> Vec<Range<usize>> {
    std::iter::once(0..limits.capacity).collect()
}

/// Rows scaled to length 1.
fn normalized(tensor: Tensor) -> Result<Tensor, GenerateError> {
    let width = tensor.shape().last().copied().unwrap_or(1).max(1);
    let mut values = tensor.as_f32()?.to_vec();
    for row in values.chunks_mut(width) {
        let norm = row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x = (*x as f64 / norm) as f32);
    }
    Ok(Tensor::f32(tensor.shape().to_vec(), values)?)
}

/// The first `dimensions` of each row, or all of them.
fn kept(tensor: Tensor, dimensions: Option<usize>) -> Result<Tensor, GenerateError> {
    let width = tensor.shape().last().copied().unwrap_or(0);
    match dimensions.filter(|&kept| kept < width) {
        Some(kept) => {
            let mut region = Region::whole(tensor.shape());
            region.0[tensor.shape().len() - 1] = 0..kept;
            Ok(tensor.slice(&region)?)
        }
        None => Ok(tensor),
    }
}

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
    /// The token that was yielded last. It is not fed before the next one is asked for.
    fresh: Option<u32>,
    left: usize,
    sampler: Sampler,
    ignore_end: bool,
    stop: Arc<AtomicBool>,
    over: bool,
    finished: Option<FinishReason>,
}

impl Tokens<'_> {
    /// Why there are no more tokens; `None` until the iterator has ended, and after an error.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.finished.as_ref()
    }

    /// The logits that the last token was chosen from, as the model gave them; empty before the first.
    pub fn logits(&self) -> &[f32] {
        if self.fresh.is_some() { &self.logits } else { &[] }
    }

    /// The next token; where there is no more, the reason that the text ended.
    fn step(&mut self) -> Result<Result<u32, FinishReason>, GenerateError> {
        if self.left == 0 {
            return Ok(Err(FinishReason::Length));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Err(FinishReason::Interrupted));
        }
        if let Some(token) = self.fresh {
            if self.engine.past >= self.engine.limits().capacity {
                return Ok(Err(FinishReason::Context));
            }
            self.logits = self.engine.feed(&[token]).and_then(last_row)?;
        }
        let token = self.sampler.sample(&self.logits)?;
        if !self.ignore_end && self.engine.model.info().end_tokens.contains(&token) {
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
