//! One rank: a program, the device that runs it, and the communicator to the other ranks. It may live in any thread
//! or process.
//!
//! It deliberately knows the other ranks by number only. Read [`crate::device`] and [`crate::comm`] for its two
//! sides, and `threads.rs` for a session, which runs several ranks in threads of one process.

use super::check::{check_env, check_input};
use super::error::SessionError;
use super::exchange::Exchanger;
use super::position::Position;
use super::shards::{OutputShard, Tensors};
use crate::comm::Communicator;
use crate::device::{Counters, Device};
use crate::program::{Instr, RankProgram};
use crate::shape::{Env, Limits};
use crate::tensor::{DType, Tensor};
use crate::wait::Progress;
use crate::weights::Weights;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a rank did since it was made: counts and times.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
#[doc(hidden)]
pub struct RankReport {
    /// The device's name.
    pub device: String,
    /// The device's counters.
    pub counters: Counters,
    /// Number of exchanges.
    pub exchanges: u64,
    /// Bytes sent to other ranks.
    pub sent_bytes: u64,
    /// Time spent in exchanges: waiting for other ranks, and copying between device and host.
    pub exchange_time: Duration,
    /// Time spent in calls, exchanges included.
    pub call_time: Duration,
}

/// An element that is NaN or infinite, and the node that computed it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[doc(hidden)]
pub struct NotFinite {
    /// The rank's number.
    pub rank: usize,
    /// Its device's name.
    pub device: String,
    /// The node's name.
    pub node: String,
    /// The element's value.
    pub value: f32,
    /// The index of the instruction that computed it.
    pub(super) instr: usize,
}

/// One rank of a program, on one device.
///
/// Use a [`Session`](super::Session) to run all ranks in one process. Use ranks directly to run them in several:
/// every process lowers the same plan, loads its rank and calls [`Rank::run`] with the same inputs, and one process
/// assembles the outputs with [`stack`](super::stack). All ranks must make the same calls in the same order.
pub struct Rank {
    program: Arc<RankProgram>,
    device: Box<dyn Device>,
    communicator: Box<dyn Communicator>,
    progress: Progress,
    position: Position,
    limits: Option<Limits>,
    exchanger: Exchanger,
    exchanges: u64,
    sent_bytes: u64,
    exchange_time: Duration,
    call_time: Duration,
}

impl Rank {
    /// A rank without weights; call [`Rank::load`] next.
    ///
    /// Errors when the communicator belongs to another rank than the program.
    pub fn new(
        program: RankProgram,
        device: Box<dyn Device>,
        communicator: Box<dyn Communicator>,
    ) -> Result<Rank, SessionError> {
        if communicator.rank() != program.rank {
            let (program, communicator) = (program.rank, communicator.rank());
            return Err(SessionError::WrongRank { program, communicator });
        }
        let program = Arc::new(program);
        let position = Position::new(program.clone(), device.name().to_string());
        Ok(Rank {
            program,
            device,
            communicator,
            progress: Progress::default(),
            position,
            limits: None,
            exchanger: Exchanger::default(),
            exchanges: 0,
            sent_bytes: 0,
            exchange_time: Duration::ZERO,
            call_time: Duration::ZERO,
        })
    }

    /// Makes the rank, its device and its communicator count their steps in `progress`, so that ranks which share it
    /// do not give up on one that is slow but at work. Call it before [`Rank::load`], which passes the counter on;
    /// without it the rank counts alone.
    #[doc(hidden)]
    pub fn share_progress(&mut self, progress: &Progress) {
        self.progress = progress.clone();
    }

    /// The instruction that the rank is running, for the thread that waits for it.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Loads the rank's shards of `weights` and allocates memory for calls up to `limits`. Call it once. `loaded` is
    /// called with the bytes of each shard after it was loaded.
    ///
    /// Errors when the device lacks memory or a weight cannot be read.
    pub fn load(
        &mut self,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        loaded: &(dyn Fn(u64) + Sync),
    ) -> Result<(), SessionError> {
        let _span = crate::trace::span!("load", rank = self.program.rank);
        let progress = self.progress.clone();
        self.device.share_progress(&progress);
        self.communicator.share_progress(&progress);
        let tell = |bytes| {
            progress.step();
            loaded(bytes);
        };
        let result = self.device.load(self.program.clone(), limits, weights, &tell);
        result.map_err(|error| self.position.fail(error.into()))?;
        self.limits = Some(*limits);
        Ok(())
    }

    /// Runs the program once on `inputs`, at the sizes in `env`; returns the shards of the outputs that this rank
    /// holds.
    ///
    /// Errors when nothing was loaded, when the call exceeds the limits, and when an input is missing or has another
    /// shape or dtype than the program says. These leave the rank usable, and its peers refuse the same call. Errors
    /// also when the device or an exchange fails, and when a peer has ended or makes no progress: drop the rank then,
    /// which ends the waits of its peers.
    pub fn run(&mut self, env: &Env, inputs: &Tensors) -> Result<Vec<OutputShard>, SessionError> {
        self.call(env, inputs, None)
    }

    /// Runs the program once, reads back the value of every node, and returns the first element that is not finite.
    pub(super) fn first_not_finite(&mut self, env: &Env, inputs: &Tensors) -> Result<Option<NotFinite>, SessionError> {
        let mut found = None;
        self.call(env, inputs, Some(&mut found))?;
        Ok(found)
    }

    /// What the rank did so far.
    #[doc(hidden)]
    pub fn report(&self) -> RankReport {
        RankReport {
            device: self.device.name().to_string(),
            counters: self.device.counters(),
            exchanges: self.exchanges,
            sent_bytes: self.sent_bytes,
            exchange_time: self.exchange_time,
            call_time: self.call_time,
        }
    }

    /// Runs and times one call; an error names the node that was running. With `watched`, reads back every value and
    /// stores the first element that is not finite.
    fn call(
        &mut self,
        env: &Env,
        inputs: &Tensors,
        watched: Option<&mut Option<NotFinite>>,
    ) -> Result<Vec<OutputShard>, SessionError> {
        let Some(limits) = self.limits else { return Err(SessionError::NotLoaded) };
        let _span = crate::trace::span!("call", rank = self.program.rank, batch = env.batch, seq = env.seq);
        let started = Instant::now();
        let env = Env { capacity: limits.capacity, ..*env };
        check_env(&env, &limits)?;
        for instr in &self.program.instrs {
            if let Instr::Input { name, value } = instr {
                let value = &self.program.values[*value];
                check_input(&env, inputs, (name, &value.shape, value.dtype))?;
            }
        }
        let shards = self.instructions(&env, inputs, watched);
        self.call_time += started.elapsed();
        let shards = shards.map_err(|error| self.position.fail(error))?;
        self.position.at(None);
        Ok(shards)
    }

    fn instructions(
        &mut self,
        env: &Env,
        inputs: &Tensors,
        mut watched: Option<&mut Option<NotFinite>>,
    ) -> Result<Vec<OutputShard>, SessionError> {
        let program = self.program.clone();
        self.device.observe(watched.is_some());
        self.device.begin(env)?;
        self.progress.step();
        let mut shards = Vec::new();
        for (index, instr) in program.instrs.iter().enumerate() {
            self.position.at(Some(index));
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
                Instr::Exchange { node, to, .. } => {
                    let started = Instant::now();
                    self.exchange(env, (index, instr))?;
                    self.exchange_time += started.elapsed();
                    // A sum may overflow although none of its addends does.
                    if let Some(found @ None) = &mut watched {
                        **found = self.look(index, node, *to)?;
                    }
                }
                Instr::Output { name, value, region } => {
                    let mut bytes = Vec::new();
                    self.device.read(*value, &mut |found| bytes.extend_from_slice(found))?;
                    shards.push(OutputShard { name: name.clone(), region: region.clone(), bytes });
                }
            }
            self.progress.step();
        }
        Ok(shards)
    }

    /// Reads back the value that `node` computed and returns its first element that is not finite.
    fn look(&mut self, instr: usize, node: &str, value: usize) -> Result<Option<NotFinite>, SessionError> {
        if self.program.values[value].dtype != DType::F32 {
            return Ok(None);
        }
        let mut bad = None;
        self.device.read(value, &mut |bytes| {
            let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            bad = { values }.find(|value| !value.is_finite());
        })?;
        let (rank, device, node) = (self.program.rank, self.device.name().to_string(), node.to_string());
        Ok(bad.map(|value| NotFinite { rank, device, node, value, instr }))
    }

    /// Runs an exchange instruction, `(number, instruction)`: the source value is sent from where the device hands it out, and
    /// what arrives is written into the target value.
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "only the span names the node"))]
    fn exchange(&mut self, env: &Env, (index, instr): (usize, &Instr)) -> Result<(), SessionError> {
        let Instr::Exchange { node, kind, from, to, send, receive } = instr else { return Ok(()) };
        let (source, target) = (&self.program.values[*from], &self.program.values[*to]);
        let span = crate::trace::span!("exchange", rank = self.program.rank, node = node.as_str(), kind = %kind, bytes = crate::trace::Empty);
        let ends = ((&source.shape, send.as_slice()), (&target.shape, receive.as_slice()));
        let size = source.dtype.size();
        let mut exchange = self.exchanger.prepare((index, *kind), self.program.rank, env, size, ends);
        let communicator = self.communicator.as_mut();
        if exchange.sends() {
            let mut done = Ok(());
            self.device.read(*from, &mut |source| done = exchange.run(communicator, source))?;
            done?;
        } else {
            exchange.run(communicator, &[])?;
        }
        crate::trace::record!(span, "bytes", exchange.bytes());
        self.sent_bytes += exchange.bytes();
        self.exchanges += 1;
        Ok(self.device.write(*to, exchange.target())?)
    }
}
