//! A program running on its devices: tensors in, tensors out.
//!
//! One worker thread per rank drives one device and one communicator through the rank's instructions; the session
//! hands them a call's inputs and stacks the outputs. It deliberately knows no tokens, no model and no plan. Read
//! [`crate::generate`] next for text.

mod worker;

use crate::comm::channel::channels;
use crate::device::{Counters, Device};
use crate::error::{CommError, Error, Result, SessionError};
use crate::graph::Weights;
use crate::program::Program;
use crate::tensor::{Env, Limits, Region, Tensor, copy_region, display_shape, resolve};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use worker::{Answer, Command, RankState};

/// How a session is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The largest call there will be; memory is taken for it.
    pub limits: Limits,
    /// How long any wait may last without progress.
    pub deadline: Duration,
}

/// Tensors by name.
pub type Tensors = HashMap<String, Tensor>;

/// What happened on one rank since the session was opened.
#[derive(Clone, Debug, Serialize)]
pub struct RankReport {
    /// The device's name.
    pub device: String,
    /// What the device did.
    pub counters: Counters,
    /// Exchanges made.
    pub exchanges: u64,
    /// Bytes sent to other ranks.
    pub sent_bytes: u64,
    /// Time spent waiting for other ranks and moving bytes to and from the host.
    pub exchange_time: Duration,
    /// Time spent in calls altogether.
    pub call_time: Duration,
}

/// A value that is no finite number, and the node that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// The rank.
    pub rank: usize,
    /// Its device's name.
    pub device: String,
    /// The node.
    pub node: String,
    /// The value: NaN or an infinity.
    pub value: f32,
    /// The instruction that made it.
    instr: usize,
}

struct Worker {
    commands: Sender<Command>,
    answers: Receiver<Answer>,
    progress: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// A program on its devices.
pub struct Session {
    workers: Vec<Worker>,
    program: Arc<Program>,
    options: Options,
    ended: bool,
}

impl Session {
    /// Loads every rank's weights onto its device, all ranks at once.
    ///
    /// `devices` are as many as the program has ranks. `progress` is told the bytes of each shard as it is loaded, from
    /// the rank's thread. Errors when a device lacks memory or a weight cannot be read.
    pub fn open(
        program: Program,
        devices: Vec<Box<dyn Device>>,
        weights: Arc<dyn Weights>,
        options: Options,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Session> {
        if devices.len() != program.ranks.len() {
            let (plan, devices) = (program.ranks.len(), devices.len());
            return Err(crate::error::PlanError::WorldSize { plan, devices }.into());
        }
        let program = Arc::new(program);
        let ends = channels(devices.len(), options.deadline);
        let mut workers = Vec::new();
        for ((device, end), rank) in devices.into_iter().zip(ends).zip(&program.ranks) {
            let (commands, inbox) = unbounded();
            let (outbox, answers) = unbounded();
            let name = device.name().to_string();
            let ticks = Arc::new(AtomicU64::new(0));
            let mut state = RankState::new(Arc::new(rank.clone()), device, Box::new(end), ticks.clone());
            let (weights, progress) = (weights.clone(), progress.clone());
            let thread = std::thread::Builder::new().name(format!("rank {}", rank.rank)).spawn(move || {
                let loaded = state.load(&options.limits, &weights, progress.as_ref());
                let failed = loaded.is_err();
                // A session that is gone wants no answer.
                let _ = outbox.send(Answer::Loaded(loaded));
                drop(weights);
                if !failed {
                    state.serve(&inbox, &outbox);
                }
            });
            let thread = thread.map_err(|error| SessionError::Rank {
                rank: rank.rank,
                device: name.clone(),
                node: None,
                source: Box::new(
                    crate::error::DeviceError::Refused { device: name.clone(), reason: error.to_string() }.into(),
                ),
            })?;
            workers.push(Worker { commands, answers, progress: ticks, thread: Some(thread) });
        }
        let mut session = Session { workers, program, options, ended: false };
        session.collect(|answer| match answer {
            Answer::Loaded(result) => result,
            Answer::Outputs(_) | Answer::Watched(_) | Answer::Report(_) => Ok(()),
        })?;
        Ok(session)
    }

    /// The program it runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The largest call it takes.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Runs the program once on `inputs`, with the symbols standing for `env`; returns the outputs by name.
    ///
    /// Errors on a missing or misshapen input or a call beyond the session's limits; these leave the session usable. An
    /// error of a rank ends it.
    pub fn run(&mut self, env: Env, inputs: Tensors) -> Result<Tensors> {
        let env = self.begin(env, inputs, false)?;
        let parts = self.collect(|answer| match answer {
            Answer::Outputs(parts) => parts,
            Answer::Loaded(_) | Answer::Watched(_) | Answer::Report(_) => Ok(Vec::new()),
        })?;
        let mut outputs = Tensors::new();
        for port in &self.program.outputs {
            let whole = Tensor::zeros(port.dtype, resolve(&port.shape, &env));
            outputs.insert(port.name.clone(), whole);
        }
        for part in parts.into_iter().flatten() {
            let Some(whole) = outputs.get_mut(&part.name) else { continue };
            let shape = whole.shape().to_vec();
            let region = part.window.resolve(&shape);
            let from = Region::whole(&region.shape());
            let size = whole.dtype().size();
            copy_region(size, (&part.bytes, &region.shape(), &from), (whole.bytes_mut(), &shape, &region));
        }
        Ok(outputs)
    }

    /// Runs the program once more, and looks at every value that a node makes for one that is no finite number.
    ///
    /// States are written as by [`Session::run`]: the same call twice leaves what one call leaves. Takes the time of
    /// reading every activation back. Errors as [`Session::run`].
    pub fn first_not_finite(&mut self, env: Env, inputs: Tensors) -> Result<Option<NotFinite>> {
        self.begin(env, inputs, true)?;
        let found = self.collect(|answer| match answer {
            Answer::Watched(found) => found,
            Answer::Loaded(_) | Answer::Outputs(_) | Answer::Report(_) => Ok(None),
        })?;
        // Ranks run the same nodes in the same order, so the earliest instruction is the origin.
        Ok(found.into_iter().flatten().min_by_key(|found| (found.instr, found.rank)))
    }

    /// Hands a call to every rank.
    fn begin(&mut self, env: Env, inputs: Tensors, watch: bool) -> Result<Env> {
        if self.ended {
            return Err(SessionError::Ended.into());
        }
        let env = Env { capacity: self.options.limits.capacity, ..env };
        self.check(&env, &inputs)?;
        let inputs = Arc::new(inputs);
        for worker in &self.workers {
            // A worker that is gone shows when its answer is awaited.
            let _ = worker.commands.send(Command::Run { env, inputs: inputs.clone(), watch });
        }
        Ok(env)
    }

    /// What happened on every rank since the session was opened.
    pub fn report(&mut self) -> Result<Vec<RankReport>> {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Report);
        }
        let reports = self.collect(|answer| match answer {
            Answer::Report(report) => Ok(Some(report)),
            Answer::Loaded(_) | Answer::Outputs(_) | Answer::Watched(_) => Ok(None),
        })?;
        Ok(reports.into_iter().flatten().map(|report| *report).collect())
    }

    fn check(&self, env: &Env, inputs: &Tensors) -> Result<()> {
        let limits = &self.options.limits;
        if env.past.saturating_add(env.seq) > limits.capacity {
            let (tokens, capacity) = (env.past.saturating_add(env.seq), limits.capacity);
            return Err(SessionError::Context { tokens, capacity, limit: None }.into());
        }
        let bounds =
            [("batch", env.batch, limits.batch), ("seq", env.seq, limits.seq), ("keep", env.keep, limits.keep)];
        for (name, value, limit) in bounds {
            if value == 0 || value > limit || env.keep > env.seq {
                let reason = format!("{value} is outside 1..={limit}, the session's limit");
                return Err(SessionError::Input { name: name.to_string(), reason }.into());
            }
        }
        let tokens = env.batch.saturating_mul(env.seq);
        if tokens > limits.tokens {
            let reason = format!(
                "{} sequences of {} are {tokens} tokens, the session takes {}",
                env.batch, env.seq, limits.tokens
            );
            return Err(SessionError::Input { name: "batch".to_string(), reason }.into());
        }
        for port in &self.program.inputs {
            let refuse = |reason| SessionError::Input { name: port.name.clone(), reason };
            let tensor = inputs.get(&port.name).ok_or_else(|| refuse("is missing".to_string()))?;
            let shape = resolve(&port.shape, env);
            if tensor.shape() != shape || tensor.dtype() != port.dtype {
                let (found, needed) = (display_shape(tensor.shape()), display_shape(&shape));
                let reason = format!("is {} {found}, the call needs {} {needed}", tensor.dtype(), port.dtype);
                return Err(refuse(reason).into());
            }
        }
        Ok(())
    }

    /// One answer of every worker, by rank. The first failure that is a cause, not a consequence, ends the session.
    fn collect<T>(&mut self, take: impl Fn(Answer) -> Result<T>) -> Result<Vec<T>> {
        let mut results = Vec::new();
        let mut failures: Vec<Error> = Vec::new();
        for rank in 0..self.workers.len() {
            match self.answer(rank) {
                Ok(answer) => match take(answer) {
                    Ok(result) => results.push(result),
                    Err(error) => failures.push(error),
                },
                Err(error) => failures.push(error),
            }
        }
        if failures.is_empty() {
            return Ok(results);
        }
        self.ended = true;
        let consequence = |error: &Error| match error {
            Error::Session(SessionError::Rank { source, .. }) => {
                matches!(**source, Error::Comm(CommError::PeerEnded { .. }))
            }
            _ => false,
        };
        let cause = failures.iter().position(|error| !consequence(error)).unwrap_or(0);
        Err(failures.swap_remove(cause))
    }

    fn answer(&self, rank: usize) -> Result<Answer> {
        let total = || self.workers.iter().map(|w| w.progress.load(Ordering::Relaxed)).sum::<u64>();
        let deadline = self.options.deadline;
        let mut seen = total();
        let mut since = Instant::now();
        let worker = &self.workers[rank];
        loop {
            match worker.answers.recv_timeout(deadline.min(Duration::from_millis(500))) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(SessionError::Ended.into()),
                Err(RecvTimeoutError::Timeout) => {
                    let now = total();
                    if now != seen {
                        (seen, since) = (now, Instant::now());
                    } else if since.elapsed() > deadline {
                        return Err(SessionError::Deadline { deadline }.into());
                    }
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let stuck = self.ended;
        for worker in &mut self.workers {
            let (closed, _) = unbounded();
            worker.commands = closed;
        }
        for worker in &mut self.workers {
            // After a failure a thread may sit in a driver: it ends on its own deadline, not on ours.
            if let Some(thread) = worker.thread.take().filter(|_| !stuck) {
                let _ = thread.join();
            }
        }
    }
}
