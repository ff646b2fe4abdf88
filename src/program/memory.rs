//! How much memory a rank's program needs on its device, counted before any device is opened.
//!
//! It deliberately knows no device. Read `room.rs` for how needs are held against devices.

use super::instr::{Instr, RankProgram};
use super::size::Size;
use crate::kernel::weight_bytes;
use crate::shape::{Limits, Shape};
use serde::Serialize;

/// Bytes of each of the two buffers through which weights are copied to a device, unless a row has more or all weights fewer.
const UPLOAD: u64 = 8 << 20;

/// Bytes that one rank needs on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub struct Memory {
    /// The rank's shards of the weights, as they are laid out on the device.
    pub weights: u64,
    /// The rank's part of the states (KV cache), at the session's capacity.
    pub state: u64,
    /// Scratch buffers: for activations, and for what the launches of an op pass to one another.
    pub activations: u64,
    /// Staging buffers, through which bytes pass between host and device: those of loading, which are gone when the weights are
    /// there, or those of calls, whichever take more.
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
    /// The most 32-bit words that one of its ops needs beside its inputs and its output.
    #[doc(hidden)]
    pub fn scratch(&self, limits: &Limits) -> usize {
        let of = |instr: &Instr| match instr {
            Instr::Compute { op, extents, .. } => op.scratch(&|name| {
                extents.iter().find(|extent| extent.name == name).map_or(1, |extent| extent.resolve(limits).1)
            }),
            _ => 0,
        };
        self.instrs.iter().map(of).max().unwrap_or(0)
    }

    /// Bytes of each of the two buffers through which the rank's weights are copied to its device: the device fills one while it
    /// copies from the other.
    #[doc(hidden)]
    pub fn upload_slot(&self, limits: &Limits) -> u64 {
        let sizes = self.weights.iter().map(|w| w.rows(limits)).map(|(rows, row)| (rows as u64, row as u64));
        let (total, longest) = sizes.fold((0u64, 0u64), |(total, longest), (rows, row)| {
            // Each weight begins at a multiple of 16 bytes.
            (total.saturating_add(rows.saturating_mul(row)).saturating_add(16), longest.max(row))
        });
        total.min(UPLOAD).max(longest)
    }

    /// What the rank needs in sessions whose calls are at most `limits`.
    #[doc(hidden)]
    pub fn memory(&self, limits: &Limits) -> Memory {
        // Saturating, since a made-up configuration may ask for more than a u64 counts; it is then refused for lack
        // of memory.
        let bytes = |words: usize| (words as u64).saturating_mul(4);
        let elements = |shape: &Shape| bytes(Size::of(shape).max(limits));
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
        let calls = sum([inputs, inputs, received, received, sent].into_iter());
        Memory {
            weights: sum(self.weights.iter().map(|w| weight_bytes(w.format, &w.local_shape(limits), w.layout))),
            state: sum(self.states.iter().map(elements)),
            activations: sum(self.buffers.iter().map(|b| b.max(limits)).chain([self.scratch(limits)]).map(bytes)),
            staging: calls.max(self.upload_slot(limits).saturating_mul(2)),
        }
    }
}
