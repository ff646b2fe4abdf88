//! A session: the ranks of one process, each in a thread of its own, given the inputs of a call and asked for its outputs.
//!
//! It deliberately knows no tokens, no model and no plan. Read `worker.rs` for what a thread does and `rank.rs` for what a
//! rank does; [`crate::generate`] next for tokens.

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

/// A program on its devices.
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
    /// Loads every rank's weights onto its device, all ranks at once, and connects the ranks by channels.
    ///
    /// `devices` are as many as the program has ranks. `progress` is told the bytes of each shard as it is loaded, from
    /// the rank's thread. Errors when the devices are not as many as the ranks, a device lacks memory or a weight cannot be read.
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

    /// As [`Session::open`], over communicators of one's own: one per rank, in the order of ranks.
    ///
    /// Before anything is loaded each is given the session's [`Progress`], by [`Communicator::share_progress`]. Errors also
    /// when the communicators are not as many as the ranks, were made for another number of ranks, or are not in the order
    /// of ranks.
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

    /// The program it runs.
    #[doc(hidden)]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The largest call it takes.
    #[doc(hidden)]
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Runs the program once on `inputs`, with the symbols standing for `env`; returns the outputs by name.
    ///
    /// Errors on a missing or misshapen input or a call beyond the session's limits; these leave the session usable. An
    /// error of a rank ends it.
    pub fn run(&mut self, env: Env, inputs: Tensors) -> Result<Tensors, SessionError> {
        let env = self.begin(env, inputs, false)?;
        let parts = self.collect(|answer| match answer {
            Answer::Outputs(parts) => parts,
            Answer::Loaded | Answer::Watched(_) | Answer::Report(_) => Vec::new(),
        })?;
        Ok(stack(&self.program, &env, parts.into_iter().flatten()))
    }

    /// Runs the program once more, and looks at every value that a node makes for one that is no finite number.
    ///
    /// States are written as by [`Session::run`]: the same call twice leaves what one call leaves. Takes the time of
    /// reading every activation back. Errors as [`Session::run`].
    #[doc(hidden)]
    pub fn first_not_finite(&mut self, env: Env, inputs: Tensors) -> Result<Option<NotFinite>, SessionError> {
        self.begin(env, inputs, true)?;
        let found = self.collect(|answer| match answer {
            Answer::Watched(found) => found,
            Answer::Loaded | Answer::Outputs(_) | Answer::Report(_) => None,
        })?;
        // Ranks run the same nodes in the same order, so the earliest instruction is the origin.
        Ok(found.into_iter().flatten().min_by_key(|found| (found.instr, found.rank)))
    }

    /// Hands a call to every rank.
    fn begin(&mut self, env: Env, inputs: Tensors, watch: bool) -> Result<Env, SessionError> {
        if self.ended {
            return Err(SessionError::Ended);
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

    /// What happened on every rank since the session was opened. Errors when the session has ended.
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

    /// Errors when the call is beyond the limits, or an input is missing or misshapen; nothing was sent to a rank then.
    fn check(&self, env: &Env, inputs: &Tensors) -> Result<(), SessionError> {
        check_env(env, &self.options.limits)?;
        let mut ports = self.program.inputs.iter();
        ports.try_for_each(|port| check_input(env, inputs, (&port.name, &port.shape, port.dtype)))
    }

    /// One answer of every worker, by rank. A failure ends the session; of several, the one that explains the others is
    /// returned.
    fn collect<T>(&mut self, take: impl Fn(Answer) -> T) -> Result<Vec<T>, SessionError> {
        let mut results = Vec::new();
        let mut failures: Vec<SessionError> = Vec::new();
        let mut silent = Vec::new();
        // Ranks that wait for a silent one are to give up before this does, and to say whom they waited for.
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

    /// What `rank` answers; none when the wait has expired.
    fn answer(&self, rank: usize, wait: &mut Wait) -> Option<Result<Answer, SessionError>> {
        let worker = &self.workers[rank];
        loop {
            match worker.answers.recv_timeout(wait.slice()) {
                Ok(answer) => return Some(answer),
                // A thread that goes without a word was ended by something else than this program.
                Err(RecvTimeoutError::Disconnected) => return Some(Err(SessionError::Ended)),
                Err(RecvTimeoutError::Timeout) if wait.expired() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What is known of a rank that answers nothing, `failures` being what the others say.
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

/// How far a rank's failure is from being the cause of the others': 0 is a cause. A rank whose peer ended tells the
/// least, and one whose peer kept silent only that.
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
            // After a failure a thread may sit in a driver: it ends on its own deadline, not on ours.
            if let Some(thread) = worker.thread.take().filter(|_| !stuck) {
                let _ = thread.join();
            }
        }
    }
}
