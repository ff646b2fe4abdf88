//! The parameter blocks of kernels, collected in one uniform buffer.
//!
//! It deliberately does not know what the words mean. Read `prepared` next for whose words they are.

use super::context::Context;
use crate::device::DeviceError;
use std::collections::HashMap;

/// The parameter blocks of a call, collected for one buffer; equal blocks are stored once.
pub(super) struct Blocks {
    words: Vec<u32>,
    /// Blocks start at multiples of this many 32-bit words.
    step: usize,
    known: HashMap<Vec<u32>, u64>,
}

impl Blocks {
    pub(super) fn new(context: &Context) -> Blocks {
        let step = context.limits.min_uniform_buffer_offset_alignment.max(16) as usize / 4;
        Blocks { words: Vec::new(), step, known: HashMap::new() }
    }

    /// Adds a block if no equal one is there; returns its offset in bytes.
    pub(super) fn add(&mut self, params: &[u32]) -> u64 {
        if let Some(&offset) = self.known.get(params) {
            return offset;
        }
        let offset = self.words.len() as u64 * 4;
        self.words.extend_from_slice(params);
        self.words.resize(self.words.len().max(offset as usize / 4 + 4).next_multiple_of(self.step), 0);
        self.known.insert(params.to_vec(), offset);
        offset
    }

    pub(super) fn upload(self, context: &mut Context) -> Result<wgpu::Buffer, DeviceError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        let buffer = context.filled("params", wgpu::BufferUsages::UNIFORM, bytes)?;
        if !bytes.is_empty() {
            context.counters.uploads += 1;
            context.counters.upload_bytes += bytes.len() as u64;
        }
        Ok(buffer)
    }
}
