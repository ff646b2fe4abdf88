//! A device that holds one rank's tensors and executes its instructions.
//!
//! The trait deliberately knows nothing of peers: it computes, and moves bytes to and from the host. Read [`host`] for
//! the reference and [`gpu`] for wgpu; [`crate::session`] drives both alike.

mod error;

pub use error::DeviceError;

pub mod gpu;
pub mod host;
pub mod select;

use crate::program::RankProgram;
use crate::shape::{Env, Limits};
use crate::wait::Progress;
use crate::weights::Weights;
use serde::Serialize;
use std::sync::Arc;

/// Executes one rank's program. One thread drives it.
pub trait Device: Send {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Bytes of the largest tensor that it holds in one piece; `None`: any.
    fn largest_tensor(&self) -> Option<u64> {
        None
    }

    /// Counts in `progress`, from now on, what it does within a call to one of the other methods, so that nobody gives up on a
    /// device that is slow but at work. Called at most once, before [`Device::load`]. Whoever drives a device counts
    /// every call that returns; a device whose calls are all short has nothing to add.
    fn share_progress(&mut self, _progress: &Progress) {}

    /// Takes `program`: allocates for calls up to `limits` and loads the rank's weight shards from `weights`.
    ///
    /// `progress` is told the bytes of every shard as it is loaded. Called once, before anything else. Errors when the
    /// device lacks memory or a weight cannot be read.
    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DeviceError>;

    /// Begins a call in which the symbols stand for `env`.
    fn begin(&mut self, env: &Env) -> Result<(), DeviceError>;

    /// Executes the instruction at `index`: a `Compute` or a `Zero`. It may run later, but before any `read` returns.
    fn execute(&mut self, index: usize) -> Result<(), DeviceError>;

    /// Writes all of a value, row-major.
    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Reads all of a value, row-major, replacing what `bytes` held. Waits, but not once there was no
    /// progress for the device's deadline.
    fn read(&mut self, value: usize, bytes: &mut Vec<u8>) -> Result<(), DeviceError>;

    /// What has been done so far.
    fn counters(&self) -> Counters;
}

/// What a device has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Ops evaluated on the host.
    pub host_ops: u64,
    /// Dispatches encoded.
    pub dispatches: u64,
    /// Command buffers submitted.
    pub submissions: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Buffers created.
    pub buffers: u64,
    /// Bytes of weights uploaded.
    pub weight_bytes: u64,
    /// Writes of anything but weights and exchanged values: parameters, tokens, positions.
    pub uploads: u64,
    /// Bytes of those.
    pub upload_bytes: u64,
    /// Exchanged values written.
    pub exchange_writes: u64,
    /// Values read back.
    pub reads: u64,
}
