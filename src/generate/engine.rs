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
use crate::program::{ProgramError, Room};
use crate::session::{NotFinite, Options, RankReport, Session, SessionError, Tensors};
use crate::shape::{Env, Limits};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// A model on its devices.
///
/// It holds one sequence of tokens, whose keys and values are in the KV cache; [`Engine::past`] says how many. What is fed or
/// generated next continues that sequence, until [`Engine::reset`] or [`Engine::rewind`] forgets it.
///
/// **After an error** of any method the engine holds what it held before the call, or nothing where the method says that it
/// starts the context anew, and the next call gives what it would give on an engine that never failed. The exceptions are
/// errors that end the session (a rank, a device or an exchange failed): every call after one of these is
/// [`SessionError::Ended`], and only a new engine helps.
pub struct Engine {
    pub(super) model: Arc<Model>,
    session: Session,
    /// How many tokens are held. Keys and values at later positions of the cache are leftovers; they are overwritten before any
    /// call reads them.
    pub(super) past: usize,
    all_logits: bool,
    pace: Pace,
}

impl Engine {
    /// Lowers `plan` and loads every rank's shard onto its device.
    ///
    /// `plan` has one rank per device, in the order of `devices`. A device whose rank has an empty share of everything is dropped:
    /// ranks are numbered without it. `progress` is told how many bytes of a shard have been loaded
    /// since it was told last, by several threads at once. Errors when the plan is for another model or another number of
    /// devices, when a device lacks memory, or when a weight cannot be read.
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

    /// As [`Engine::open`], with the weights of `model`'s graph read from `weights` instead: random ones, or altered ones.
    #[doc(hidden)]
    pub fn with_weights(
        model: Arc<Model>,
        weights: Arc<dyn Weights>,
        plan: &Plan,
        devices: Vec<Box<dyn Device>>,
        options: EngineOptions,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Engine, GenerateError> {
        if devices.len() != plan.world_size {
            let (plan, devices) = (plan.world_size, devices.len());
            return Err(SessionError::WorldSize { plan, devices }.into());
        }
        let (plan, ranks) = plan.taking_part(model.graph()).map_err(ProgramError::from)?;
        let taking = |(rank, device)| ranks.contains(&rank).then_some(device);
        let devices: Vec<Box<dyn Device>> = devices.into_iter().enumerate().filter_map(taking).collect();
        let room = |(i, device): (usize, &dyn Device)| Room {
            largest: device.largest_tensor(),
            ..Room::new(device.name(), None, i)
        };
        let rooms: Vec<Room> = devices.iter().map(AsRef::as_ref).enumerate().map(room).collect();
        let (program, limits) = prepare(&model, &plan, &options, &rooms)?;
        program.check(&limits, &rooms)?;
        let session_options = Options::new(limits).deadline(options.deadline);
        let session = Session::open(program, devices, weights, session_options, progress)?;
        Ok(Engine { model, session, past: 0, all_logits: options.all_logits, pace: Pace::default() })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How many tokens the engine holds, which is how many positions of the KV cache are in use.
    pub fn past(&self) -> usize {
        self.past
    }

    /// The largest call that the engine takes: most sequences, most tokens, and the size of the context.
    pub fn limits(&self) -> &Limits {
        self.session.limits()
    }

    /// Forgets all tokens held: what is fed next is the beginning of a text.
    pub fn reset(&mut self) {
        self.past = 0;
    }

    /// Forgets all tokens held but the first `to`, so that what is fed next comes after those.
    ///
    /// Returns how many tokens are held now: `to`, or as many as before where these were fewer. It takes no time, since the
    /// cache stays as it is and is overwritten by later tokens.
    #[doc(hidden)]
    pub fn rewind(&mut self, to: usize) -> usize {
        self.past = self.past.min(to);
        self.past
    }

    /// How long the calls so far took. The first call of each shape is left out, since it compiles kernels.
    #[doc(hidden)]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What every rank has done since the engine was opened, by rank. Errors when the session has ended.
    #[doc(hidden)]
    pub fn report(&mut self) -> Result<Vec<RankReport>, GenerateError> {
        Ok(self.session.report()?)
    }

    /// Feeds `tokens` after those that the engine holds, in chunks, and holds them too. Returns the logits of the last position,
    /// `[1, vocabulary]`, or those of every position, `[positions, vocabulary]`, where the engine was opened with
    /// [`EngineOptions::all_logits`](super::EngineOptions#structfield.all_logits).
    ///
    /// Errors when the model predicts no tokens, there is no token, one is outside the vocabulary, they do not fit the context,
    /// or a logit is not a finite number. The engine then holds what it held before, whichever chunk failed.
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

    /// Every output of the graph by name, for `tokens` as the beginning of a text, in a single call.
    ///
    /// Errors as [`Engine::feed`], and when the tokens are more than one call takes.
    #[doc(hidden)]
    pub fn outputs(&mut self, tokens: &[u32]) -> Result<Tensors, GenerateError> {
        self.check(tokens, 0)?;
        self.reset();
        // A row of a model that pools ends with its text; a row of one that generates may grow to the whole context.
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

    /// Runs one call and returns its output named `output`.
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

    /// Runs one call and returns every output by name. Errors when a value is not a finite number, with the node that made the
    /// first such value. It leaves `past` as it is: the caller sets it once all calls of a method have succeeded.
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
                    // The call was repeated and gave finite numbers: a device whose results change from call to call.
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

/// The span of a single sequence: it may use the whole context, and has no padding.
fn alone(limits: &Limits) -> Vec<Range<usize>> {
    std::iter::once(0..limits.capacity).collect()
}
