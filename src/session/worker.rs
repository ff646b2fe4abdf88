//! One rank's thread: it drives a device through the rank's instructions and exchanges through a communicator.
//!
//! It deliberately knows no other rank but by number, and packs boxes without knowing which collective they make up.
//! Read [`crate::device`] and [`crate::comm`] next for the two ends that it holds.

use super::{NotFinite, RankReport, Tensors};
use crate::comm::CommError;
use crate::comm::{Bytes, Communicator};
use crate::device::Device;
use crate::program::{Instr, RankProgram};
use crate::session::SessionError;
use crate::shape::{Env, Limits, resolve};
use crate::tensor::SymbolicRegion;
use crate::tensor::{DType, Region, Tensor, copy_region};
use crate::wait::Progress;
use crate::weights::Weights;
use crossbeam::channel::{Receiver, Sender};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the session asks of a worker.
pub(super) enum Command {
    /// `watch`: look at what every node makes, and answer [`Answer::Watched`].
    Run {
        env: Env,
        inputs: Arc<Tensors>,
        watch: bool,
    },
    Report,
}

/// What a worker answers, unless it fails.
pub(super) enum Answer {
    Loaded,
    Outputs(Vec<Part>),
    Watched(Option<NotFinite>),
    Report(Box<RankReport>),
}

/// Where a rank is, for whoever tells of its failure: the rank itself, or the session when the rank says nothing.
#[derive(Clone)]
pub(super) struct Site {
    program: Arc<RankProgram>,
    device: String,
    /// The instruction it is at; none has this number outside a call.
    pub(super) instr: Arc<AtomicUsize>,
}

impl Site {
    /// A rank that has done nothing yet.
    pub(super) fn new(program: Arc<RankProgram>, device: String) -> Site {
        Site { program, device, instr: Arc::new(AtomicUsize::new(usize::MAX)) }
    }

    /// `cause`, with the rank, its device and the node it is at.
    fn fail(&self, cause: SessionError) -> SessionError {
        let node = self.program.node(self.instr.load(Ordering::Relaxed)).map(str::to_string);
        let (rank, device, cause) = (self.program.rank, self.device.clone(), Box::new(cause));
        SessionError::Rank { rank, device, node, cause }
    }

    /// What `work` returns; as an error with the panic's words where it panics, in a device, a communicator or a reader
    /// of weights alike.
    pub(super) fn caught(&self, work: impl FnOnce() -> Result<(), SessionError>) -> Result<(), SessionError> {
        // What `work` owns goes with it, and all that is left is this site.
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let words = words.unwrap_or("without a word").to_string();
            Err(self.fail(SessionError::Panicked { words }))
        })
    }
}

/// A part of an output, as one rank returns it.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) window: SymbolicRegion,
    pub(super) bytes: Vec<u8>,
}

/// What one worker thread owns.
pub(super) struct RankState {
    program: Arc<RankProgram>,
    device: Box<dyn Device>,
    end: Box<dyn Communicator>,
    progress: Progress,
    site: Site,
    scratch: Vec<u8>,
    exchanges: u64,
    sent_bytes: u64,
    exchange_time: Duration,
    call_time: Duration,
}

impl RankState {
    /// A rank that has done nothing yet; it counts every instruction in `progress`, and says in `site` where it is.
    pub(super) fn new(
        program: Arc<RankProgram>,
        device: Box<dyn Device>,
        end: Box<dyn Communicator>,
        progress: Progress,
        site: Site,
    ) -> RankState {
        RankState {
            program,
            device,
            end,
            progress,
            site,
            scratch: Vec::new(),
            exchanges: 0,
            sent_bytes: 0,
            exchange_time: Duration::ZERO,
            call_time: Duration::ZERO,
        }
    }

    /// Loads the rank's shard, then answers commands until the session goes. Errors when the rank fails; it is to be
    /// dropped then, which ends the others' waits for it at once.
    pub(super) fn work(
        &mut self,
        limits: &Limits,
        weights: Arc<dyn Weights>,
        told: &(dyn Fn(u64) + Sync),
        inbox: &Receiver<Command>,
        outbox: &Sender<Result<Answer, SessionError>>,
    ) -> Result<(), SessionError> {
        let progress = self.progress.clone();
        let tell = |bytes| {
            progress.step();
            told(bytes);
        };
        self.device
            .load(self.program.clone(), limits, &weights, &tell)
            .map_err(|error| self.site.fail(error.into()))?;
        drop(weights);
        let mut answer = Answer::Loaded;
        // A session that is gone wants no answer.
        while outbox.send(Ok(answer)).is_ok() {
            let Ok(command) = inbox.recv() else { break };
            answer = match command {
                Command::Report => Answer::Report(Box::new(RankReport {
                    device: self.device.name().to_string(),
                    counters: self.device.counters(),
                    exchanges: self.exchanges,
                    sent_bytes: self.sent_bytes,
                    exchange_time: self.exchange_time,
                    call_time: self.call_time,
                })),
                Command::Run { env, inputs, watch } => {
                    let started = Instant::now();
                    let mut found = None;
                    let parts = self.call(&env, &inputs, watch.then_some(&mut found));
                    self.call_time += started.elapsed();
                    let parts = parts.map_err(|error| self.site.fail(error))?;
                    self.site.instr.store(usize::MAX, Ordering::Relaxed);
                    if watch { Answer::Watched(found) } else { Answer::Outputs(parts) }
                }
            };
        }
        Ok(())
    }

    /// Runs the program once. Into `watched` goes the first value that is no finite number.
    fn call(
        &mut self,
        env: &Env,
        inputs: &Tensors,
        mut watched: Option<&mut Option<NotFinite>>,
    ) -> Result<Vec<Part>, SessionError> {
        let program = self.program.clone();
        self.device.begin(env)?;
        self.progress.step();
        let mut parts = Vec::new();
        for (index, instr) in program.instrs.iter().enumerate() {
            self.site.instr.store(index, Ordering::Relaxed);
            match instr {
                Instr::Input { name, value } => {
                    let bytes = inputs.get(name).map(Tensor::bytes).unwrap_or_default();
                    self.device.write(*value, bytes)?;
                }
                Instr::Compute { node, output, .. } => {
                    self.device.execute(index)?;
                    if let Some(found @ None) = &mut watched {
                        **found = self.look(index, node, *output)?;
                    }
                }
                Instr::Zero { .. } => self.device.execute(index)?,
                Instr::Exchange { from, to, send, receive, .. } => {
                    let started = Instant::now();
                    self.exchange(env, (*from, send), (*to, receive))?;
                    self.exchange_time += started.elapsed();
                }
                Instr::Output { name, value, window } => {
                    let mut bytes = Vec::new();
                    self.device.read(*value, &mut bytes)?;
                    parts.push(Part { name: name.clone(), window: window.clone(), bytes });
                }
            }
            self.progress.step();
        }
        Ok(parts)
    }

    /// Whether the value that `node` made is finite throughout.
    fn look(&mut self, instr: usize, node: &str, value: usize) -> Result<Option<NotFinite>, SessionError> {
        if self.program.values[value].dtype != DType::F32 {
            return Ok(None);
        }
        self.device.read(value, &mut self.scratch)?;
        let values = self.scratch.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let (rank, device, node) = (self.program.rank, self.device.name().to_string(), node.to_string());
        let bad = { values }.find(|value| !value.is_finite());
        Ok(bad.map(|value| NotFinite { rank, device, node, value, instr }))
    }

    /// Packs the boxes that others get, exchanges them, and writes what came into the new value.
    fn exchange(
        &mut self,
        env: &Env,
        (from, send): (usize, &[Option<SymbolicRegion>]),
        (to, receive): (usize, &[Option<SymbolicRegion>]),
    ) -> Result<(), SessionError> {
        let program = self.program.clone();
        let rank = program.rank;
        let (source, target) = (&program.values[from], &program.values[to]);
        let (source_shape, target_shape) = (resolve(&source.shape, env), resolve(&target.shape, env));
        let size = source.dtype.size();
        if send.iter().any(Option::is_some) {
            self.device.read(from, &mut self.scratch)?;
        }
        let mut packed: Vec<(&SymbolicRegion, Bytes)> = Vec::new();
        let mut parts: Vec<Option<Bytes>> = Vec::new();
        for window in send {
            let Some(window) = window else {
                parts.push(None);
                continue;
            };
            // A gather sends the same box to all: it is packed once.
            let known = packed.iter().find(|(w, _)| *w == window).map(|(_, bytes)| bytes.clone());
            let bytes = known.unwrap_or_else(|| {
                let region = window.resolve(&source_shape);
                let shape = region.shape();
                let mut bytes = vec![0; region.numel() * size];
                copy_region(
                    size,
                    (&self.scratch, &source_shape, &region),
                    (&mut bytes, &shape, &Region::whole(&shape)),
                );
                let bytes = Bytes::from(bytes);
                packed.push((window, bytes.clone()));
                bytes
            });
            parts.push(Some(bytes));
        }
        for (to, part) in parts.iter().enumerate().filter(|(to, _)| *to != rank) {
            if let Some(bytes) = part {
                self.sent_bytes += bytes.len() as u64;
                self.end.send(to, bytes.clone())?;
            }
        }
        self.exchanges += 1;
        let numel: usize = target_shape.iter().product();
        let mut assembled = vec![0; numel * size];
        for (peer, window) in receive.iter().enumerate() {
            let Some(window) = window else { continue };
            let bytes = match &parts[peer] {
                Some(own) if peer == rank => own.clone(),
                _ => self.end.receive(peer)?,
            };
            let region = window.resolve(&target_shape);
            let expected = region.numel() * size;
            if bytes.len() != expected {
                return Err(CommError::Length { rank, peer, expected, found: bytes.len() }.into());
            }
            let shape = region.shape();
            copy_region(size, (&bytes, &shape, &Region::whole(&shape)), (&mut assembled, &target_shape, &region));
        }
        Ok(self.device.write(to, &assembled)?)
    }
}
