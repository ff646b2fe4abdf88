//! A model on its devices: tokens in, logits or hidden states out.
//!
//! It feeds a [`Session`] chunk by chunk and deliberately knows no text: ids in, ids out. Read `tokens.rs` for how an answer is
//! generated token by token, `answers.rs` for several at once, and `encode.rs` for what embeds and classifies.

use super::call::{PaddedCall, Text};
use super::error::GenerateError;
use super::options::{EngineOptions, prepare};
use super::pace::Pace;
use crate::device::Device;
use crate::model::Model;
use crate::plan::Plan;
use crate::program::Room;
use crate::session::{NotFinite, Options, RankReport, Session, SessionError, Tensors};
use crate::shape::{Env, Limits};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// A model on its devices.
///
/// It holds one sequence of tokens, whose keys and values are in the KV cache; [`Engine::past`] says how many.
///
/// **After an error** of any method the engine holds what it held before the call, or nothing where the method says that it
/// starts the context anew, and the next call gives what it would give on an engine that never failed. The exceptions are
/// errors that end the session (a rank, a device or an exchange failed): every call after one of these is
/// [`SessionError::Ended`], and only a new engine helps.
pub struct Engine {
    pub(super) model: Arc<Model>,
    session: Session,
    /// The tokens held. Whatever lies in the cache after so many positions is written over before it is read.
    pub(super) past: usize,
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
    #[doc(hidden)]
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
    #[doc(hidden)]
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
            let logits = self.call(&PaddedCall::of(chunk.to_vec(), alone(self.limits()), past), "logits")?;
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

    pub(super) fn require(&self, output: &str, reason: &str) -> Result<(), GenerateError> {
        if self.model.graph().outputs().iter().any(|(name, _)| name == output) {
            return Ok(());
        }
        let model = self.model.path().display().to_string();
        Err(GenerateError::Model { model, reason: reason.to_string() })
    }

    /// Every output of the graph for `tokens`, by name, in one call that starts the context anew.
    ///
    /// Errors as [`Engine::feed`], and when the tokens are more than one call takes.
    #[doc(hidden)]
    pub fn outputs(&mut self, tokens: &[u32]) -> Result<Tensors, GenerateError> {
        self.check(tokens, 0)?;
        self.reset();
        // What pools a text has to know where it ends; what goes on after it has the whole context.
        let call = match self.model.info().generates {
            true => PaddedCall::of(tokens.to_vec(), alone(self.limits()), 0),
            false => PaddedCall::padded(&[&Text::from(tokens.to_vec())], tokens.len()),
        };
        let outputs = self.call_all(&call)?;
        self.past = tokens.len();
        Ok(outputs)
    }

    /// Errors unless `tokens` can be fed after `past` others.
    pub(super) fn check(&self, tokens: &[u32], past: usize) -> Result<(), GenerateError> {
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
    pub(super) fn call(&mut self, call: &PaddedCall, output: &str) -> Result<Tensor, GenerateError> {
        let mut outputs = self.call_all(call)?;
        outputs.remove(output).ok_or_else(|| {
            let present = outputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            SessionError::Output { name: output.to_string(), present }.into()
        })
    }

    /// The call's value of every input of the graph.
    fn inputs(&self, call: &PaddedCall) -> Result<Tensors, GenerateError> {
        let info = self.model.info();
        let value = |name: &str| call.input(name, info);
        let ports = self.session.program().inputs.iter();
        ports.map(|port| Ok((port.name.clone(), value(&port.name)?))).collect()
    }

    /// Every output of a call. Errors when one is no finite number, with the node where that began. What the engine holds
    /// is the caller's to say, once all of its calls are done.
    pub(super) fn call_all(&mut self, call: &PaddedCall) -> Result<Tensors, GenerateError> {
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
}

/// One sequence, which holds the whole context.
fn alone(limits: &Limits) -> Vec<Range<usize>> {
    std::iter::once(0..limits.capacity).collect()
}
