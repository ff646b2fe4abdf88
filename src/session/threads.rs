//! A session: all ranks of a program in one process, each in a thread of its own.
//!
//! It deliberately knows no tokens, no model and no plan. Read `worker.rs` for what a thread does and `rank.rs` for
//! what a rank does; [`crate::generate`] next for tokens.

use super::check::{check_env, check_input};
use super::error::SessionError;
use super::options::Options;
use super::position::Position;
use super::rank::{NotFinite, Rank, RankReport};
use super::shards::{Tensors, stack};
use super::worker::{Answer, Command, work};
use crate::comm::channel::channels;
use crate::comm::{CommError, Communicator};
use crate::device::{Device, DeviceError};
use crate::program::Program;
use crate::shape::{Env, Limits};
use crate::wait::{Progress, Wait};
use crate::weights::Weights;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A rank's thread, as the session sees it.
struct Worker {
    commands: Sender<Command>,
    answers: Receiver<Result<Answer, SessionError>>,
    /// Where the rank is in its program.
    position: Position,
    thread: Option<JoinHandle<()>>,
}

/// A program loaded on its devices, ready to run.
pub struct Session {
    workers: Vec<Worker>,
    program: Arc<Program>,
    options: Options,
    progress: Progress,
    ended: bool,
}

/// Starts the thread of `rank`, which loads its weights and then waits for commands.
fn start(
    rank: Rank,
    limits: Limits,
    weights: Arc<dyn Weights>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<Worker, SessionError> {
    let (commands, inbox) = unbounded();
    let (outbox, answers) = unbounded();
    let position = rank.position().clone();
    let thread = std::thread::Builder::new()
        .name("rank".to_string())
        .spawn(move || work(rank, &limits, weights, progress.as_ref(), &inbox, &outbox));
    match thread {
        Ok(thread) => Ok(Worker { commands, answers, position, thread: Some(thread) }),
        Err(error) => {
            let (device, reason) = (position.device().to_string(), error.to_string());
            Err(position.fail(DeviceError::Refused { device, reason }.into()))
        }
    }
}

impl Session {
    /// Starts one thread per rank, connects the ranks by channels, and loads every rank's weights onto its device,
    /// all ranks at once.
    ///
    /// `devices` holds one device per rank, in the order of ranks. `progress` is called from the rank's thread with
    /// the bytes of each shard after it was loaded. Errors when the number of devices is not the number of ranks, a
    /// device lacks memory, or a weight cannot be read.
    pub fn open(
        program: Program,
        devices: Vec<Box<dyn Device>>,
        weights: Arc<dyn Weights>,
        options: Options,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Session, SessionError> {
        let ends = channels(devices.len(), options.deadline).into_iter();
        let ends = ends.map(|end| Box::new(end) as Box<dyn Communicator>).collect();
        Session::with_communicators(program, devices, ends, weights, options, progress)
    }

    /// As [`Session::open`], over your own communicators: one per rank, in the order of ranks.
    ///
    /// Before anything is loaded, the session passes its [`Progress`] to each by [`Communicator::share_progress`].
    /// Errors also when the number of communicators is not the number of ranks, or when a communicator has another
    /// rank or world size.
    pub fn with_communicators(
        program: Program,
        devices: Vec<Box<dyn Device>>,
        communicators: Vec<Box<dyn Communicator>>,
        weights: Arc<dyn Weights>,
        options: Options,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Session, SessionError> {
        let plan = program.ranks.len();
        if devices.len() != plan {
            return Err(SessionError::WorldSize { plan, devices: devices.len() });
        }
        let worlds = communicators.iter().map(|end| end.world_size());
        if let Some(given) = worlds.chain([communicators.len()]).find(|&given| given != plan) {
            return Err(SessionError::Communicators { plan, given });
        }
        let program = Arc::new(program);
        let steps = Progress::default();
        let mut workers = Vec::new();
        for ((device, communicator), rank) in devices.into_iter().zip(communicators).zip(&program.ranks) {
            let mut rank = Rank::new(rank.clone(), device, communicator)?;
            rank.share_progress(&steps);
            workers.push(start(rank, options.limits, weights.clone(), progress.clone())?);
        }
        let mut session = Session { workers, program, options, progress: steps, ended: false };
        session.collect(|_| ())?;
        Ok(session)
    }

    /// The program that the session runs.
    #[doc(hidden)]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The largest call that the session accepts.
    #[doc(hidden)]
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Runs the program once on `inputs`, at the sizes in `env`; returns the outputs by name.
    ///
    /// Errors when an input is missing or has another shape or dtype than the program says, and when the call exceeds
    /// the session's limits; these leave the session usable. Errors also when a rank fails, which ends the session:
    /// every later call returns [`SessionError::Ended`].
    pub fn run(&mut self, env: Env, inputs: Tensors) -> Result<Tensors, SessionError> {
        let env = self.begin(env, inputs, false)?;
        let parts = self.collect(|answer| match answer {
            Answer::Outputs(parts) => parts,
            Answer::Loaded | Answer::Watched(_) | Answer::Report(_) => Vec::new(),
        })?;
        stack(&self.program, &env, parts.into_iter().flatten())
    }

    /// Runs the program once, reads back every activation, and returns the first element that is not finite with the
    /// node that computed it.
    ///
    /// The KV cache is written as by [`Session::run`], so repeating a failed call here leaves it as that call left
    /// it. Slow: every activation travels to the host. Errors as [`Session::run`].
    #[doc(hidden)]
    pub fn first_not_finite(&mut self, env: Env, inputs: Tensors) -> Result<Option<NotFinite>, SessionError> {
        self.begin(env, inputs, true)?;
        let found = self.collect(|answer| match answer {
            Answer::Watched(found) => found,
            Answer::Loaded | Answer::Outputs(_) | Answer::Report(_) => None,
        })?;
        // All ranks run the same nodes in the same order, so the earliest instruction is where the value first
        // appeared.
        Ok(found.into_iter().flatten().min_by_key(|found| (found.instr, found.rank)))
    }

    /// Checks a call and sends it to every rank; returns `env` with the session's capacity filled in.
    fn begin(&mut self, env: Env, inputs: Tensors, watch: bool) -> Result<Env, SessionError> {
        if self.ended {
            return Err(SessionError::Ended);
        }
        let env = Env { capacity: self.options.limits.capacity, ..env };
        self.check(&env, &inputs)?;
        let inputs = Arc::new(inputs);
        for worker in &self.workers {
            // Sending to a thread that has ended fails; `collect` reports that when it waits for the answer.
            let _ = worker.commands.send(Command::Run { env, inputs: inputs.clone(), watch });
        }
        Ok(env)
    }

    /// What each rank did since the session was opened. Errors when the session has ended.
    #[doc(hidden)]
    pub fn report(&mut self) -> Result<Vec<RankReport>, SessionError> {
        if self.ended {
            return Err(SessionError::Ended);
        }
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Report);
        }
        let reports = self.collect(|answer| match answer {
            Answer::Report(report) => Some(report),
            Answer::Loaded | Answer::Outputs(_) | Answer::Watched(_) => None,
        })?;
        Ok(reports.into_iter().flatten().map(|report| *report).collect())
    }

    /// Errors when the call exceeds the limits, or an input is missing or has the wrong shape or dtype.
    fn check(&self, env: &Env, inputs: &Tensors) -> Result<(), SessionError> {
        check_env(env, &self.options.limits)?;
        let mut ports = self.program.inputs.iter();
        ports.try_for_each(|port| check_input(env, inputs, (&port.name, &port.shape, port.dtype)))
    }

    /// Waits for one answer of every rank. A failure ends the session; of several failures, the one that caused the
    /// others is returned.
    fn collect<T>(&mut self, take: impl Fn(Answer) -> T) -> Result<Vec<T>, SessionError> {
        let mut results = Vec::new();
        let mut failures: Vec<SessionError> = Vec::new();
        let mut silent = Vec::new();
        // The session waits a little longer than the ranks do: ranks that wait for a silent peer then give up first,
        // and their errors name the peer.
        let deadline = self.options.deadline + (self.options.deadline / 4).min(Duration::from_secs(2));
        let mut wait = Wait::new(&self.progress, deadline);
        for rank in 0..self.workers.len() {
            match self.answer(rank, &mut wait) {
                Some(Ok(answer)) => results.push(take(answer)),
                Some(Err(error)) => failures.push(error),
                None => silent.push(rank),
            }
        }
        if failures.is_empty() && silent.is_empty() {
            return Ok(results);
        }
        self.ended = true;
        failures.extend(silent.into_iter().map(|rank| self.stalled(rank, &failures)).collect::<Vec<_>>());
        let cause = (0..failures.len()).min_by_key(|&i| remoteness(&failures[i])).unwrap_or(0);
        Err(failures.swap_remove(cause))
    }

    /// The answer of `rank`, or `None` when the wait has expired.
    fn answer(&self, rank: usize, wait: &mut Wait) -> Option<Result<Answer, SessionError>> {
        let worker = &self.workers[rank];
        loop {
            match worker.answers.recv_timeout(wait.slice()) {
                Ok(answer) => return Some(answer),
                // The worker sends an answer before it ends, panics included; a closed channel without one has a
                // cause outside this library.
                Err(RecvTimeoutError::Disconnected) => return Some(Err(SessionError::Ended)),
                Err(RecvTimeoutError::Timeout) if wait.expired() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The error for a rank that does not answer. `failures` are the errors of the others; those that waited for this
    /// rank are named.
    fn stalled(&self, rank: usize, failures: &[SessionError]) -> SessionError {
        let waits = |error: &SessionError| match error {
            SessionError::Rank { cause, .. } => match **cause {
                SessionError::Comm(CommError::Deadline { rank: who, peer, .. }) if peer == rank => Some(who),
                _ => None,
            },
            _ => None,
        };
        let position = &self.workers[rank].position;
        let (device, node) = (position.device().to_string(), position.node());
        let waiting = failures.iter().filter_map(waits).collect();
        SessionError::Stalled { rank, device, node, waiting, deadline: self.options.deadline }
    }
}

/// Orders failures by how far they are from the cause; 0 is a cause. When one rank fails, its peers fail too because
/// it ended (3) or fell silent (2), and their errors explain nothing.
fn remoteness(error: &SessionError) -> u8 {
    match error {
        SessionError::Rank { cause, .. } => match **cause {
            SessionError::Comm(CommError::PeerEnded { .. }) => 3,
            SessionError::Comm(CommError::Deadline { .. }) => 2,
            _ => 0,
        },
        SessionError::Stalled { .. } => 1,
        _ => 4,
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
            // After a failure a thread may be stuck in a driver call. Dropping the session does not wait for it.
            if let Some(thread) = worker.thread.take().filter(|_| !stuck) {
                let _ = thread.join();
            }
        }
    }
}
