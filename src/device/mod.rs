//! Devices: what holds one rank's tensors and executes its instructions.
//!
//! The trait deliberately knows no other rank: a device computes, and moves bytes to and from the host. Read [`host`]
//! for the reference evaluation and [`gpu`] for wgpu; [`crate::session`] drives both in the same way.

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

/// Executes one rank's program. It is driven from one thread.
pub trait Device: Send {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Bytes of the largest tensor that it holds in one piece; `None` when there is no limit.
    fn largest_tensor(&self) -> Option<u64> {
        None
    }

    /// Gives the device the counter that it advances while one of its other methods works, so that no wait gives up
    /// on a device that is slow but at work. Called at most once, before [`Device::load`]. The caller counts every
    /// method that returns, so a device whose methods are all quick may ignore this.
    fn share_progress(&mut self, _progress: &Progress) {}

    /// Takes `program`: allocates memory for calls up to `limits` and loads the rank's weight shards from `weights`.
    ///
    /// `progress` is called with the bytes of every shard as it is loaded. Called once, before any call. Errors when
    /// the device lacks memory or a weight cannot be read.
    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DeviceError>;

    /// Says whether [`Device::read`] may be called for every value in the calls that begin from now on, and not only for outputs
    /// and what is exchanged. A device that computes fused instructions together then computes each by itself.
    fn observe(&mut self, _every_value: bool) {}

    /// Begins a call with the dimensions `env`. Errors when nothing is loaded, when `env` exceeds the limits, or when
    /// the device was lost.
    fn begin(&mut self, env: &Env) -> Result<(), DeviceError>;

    /// Executes the instruction number `index`, a `Compute` or a `Zero`. The device may run it later, but before any
    /// `read` returns. Errors when the device refuses it or was lost.
    fn execute(&mut self, index: usize) -> Result<(), DeviceError>;

    /// Writes all elements of a value, row-major and little-endian. Errors when their number is not the value's.
    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Calls `with` once, with all elements of a value, row-major and little-endian. Waits for the instructions that compute it.
    ///
    /// The bytes may be memory that the device shares with the host, and are only lent. Errors when there was no progress for
    /// the device's deadline, and when the device was lost.
    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError>;

    /// What the device has done since it was opened.
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
    /// Bytes of the buffers through which weights were uploaded, which are gone once they are.
    pub staging_bytes: u64,
    /// Writes of parameters, tokens and positions: of everything but weights and exchanged values.
    pub uploads: u64,
    /// Bytes of those writes.
    pub upload_bytes: u64,
    /// Exchanged values written.
    pub exchange_writes: u64,
    /// Values read back.
    pub reads: u64,
}
