//! How much memory a rank's program needs on its device, counted before any device is opened.
//!
//! It deliberately knows no device. Read `room.rs` for how needs are held against devices.

use super::instr::{Instr, RankProgram};
use super::size::Size;
use crate::kernel::weight_bytes;
use crate::shape::{Limits, Shape};
use serde::Serialize;

/// Bytes that one rank needs on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub struct Memory {
    /// The rank's shards of the weights, as they are laid out on the device.
    pub weights: u64,
    /// The rank's part of the states (KV cache), at the session's capacity.
    pub state: u64,
    /// Scratch buffers for activations.
    pub activations: u64,
    /// Staging buffers, through which bytes pass between host and device.
    pub staging: u64,
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

impl Memory {
    /// The sum of all four.
    pub fn total(&self) -> u64 {
        sum([self.weights, self.state, self.activations, self.staging].into_iter())
    }
}

impl RankProgram {
    /// What the rank needs in sessions whose calls are at most `limits`.
    #[doc(hidden)]
    pub fn memory(&self, limits: &Limits) -> Memory {
        // Saturating, since a made-up configuration may ask for more than a u64 counts; it is then refused for lack
        // of memory.
        let elements = |shape: &Shape| (Size::of(shape).max(limits) as u64).saturating_mul(4);
        // Staging holds a call's inputs and the largest exchange twice, since one buffer may be filled while the
        // other is read, and the largest value that is read back.
        let (mut inputs, mut received, mut sent) = (0, 0, 0);
        for instr in &self.instrs {
            match instr {
                Instr::Input { value, .. } => inputs = sum([inputs, elements(&self.values[*value].shape)].into_iter()),
                Instr::Output { value, .. } => sent = sent.max(elements(&self.values[*value].shape)),
                Instr::Exchange { from, to, .. } => {
                    received = received.max(elements(&self.values[*to].shape));
                    sent = sent.max(elements(&self.values[*from].shape));
                }
                Instr::Compute { .. } | Instr::Zero { .. } => {}
            }
        }
        Memory {
            weights: sum(self.weights.iter().map(|w| weight_bytes(w.format, &w.local_shape(limits), w.layout))),
            state: sum(self.states.iter().map(elements)),
            activations: sum(self.buffers.iter().map(|b| (b.max(limits) as u64).saturating_mul(4))),
            staging: sum([inputs, inputs, received, received, sent].into_iter()),
        }
    }
}
