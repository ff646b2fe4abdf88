//! How bytes cross between host and GPU: buffers that both can reach, made once and reused.
//!
//! It deliberately does not know what the bytes are. wgpu's own `write_buffer` makes a buffer per call, which a decode
//! step cannot afford. Read `recorder` next for when copies happen.

use super::context::{Context, Mapping, aligned};
use crate::device::DeviceError;

use wgpu::BufferUsages;

/// A buffer the host fills and the GPU copies from.
struct Slot {
    buffer: wgpu::Buffer,
    mapping: Mapping,
    submission: Option<wgpu::SubmissionIndex>,
    used: u64,
}

/// Writes to the GPU through a few slots in turn: one fills while the GPU copies from the others.
pub(super) struct Writer {
    slots: Vec<Slot>,
    current: usize,
    capacity: u64,
}

impl Writer {
    /// A writer whose `slots` take `capacity` bytes each.
    pub(super) fn new(context: &mut Context, slots: usize, capacity: u64) -> Result<Writer, DeviceError> {
        let capacity = aligned(capacity);
        let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
        let slot = |context: &mut Context| -> Result<Slot, DeviceError> {
            let buffer = context.buffer("write staging", capacity, usage, true)?;
            Ok(Slot { buffer, mapping: Mapping::mapped(), submission: None, used: 0 })
        };
        let slots = (0..slots).map(|_| slot(context)).collect::<Result<_, DeviceError>>()?;
        Ok(Writer { slots, current: 0, capacity })
    }

    /// Whether the current slot takes `bytes` more.
    pub(super) fn takes(&self, bytes: u64) -> bool {
        self.slots[self.current].used + bytes <= self.capacity
    }

    /// Puts `bytes` into the current slot, which must take them, by parts that follow each other. Returns where they
    /// lie.
    pub(super) fn put<'a>(
        &mut self,
        context: &Context,
        bytes: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(&wgpu::Buffer, u64), DeviceError> {
        if !self.takes(bytes) {
            return Err(context.refused(format!("{bytes} bytes exceed the staging of {}", self.capacity)));
        }
        let slot = &mut self.slots[self.current];
        context.wait(&slot.mapping, slot.submission.as_ref())?;
        let start = slot.used;
        let view = slot.buffer.get_mapped_range_mut(start..start + bytes);
        let mut view = view.map_err(|error| context.refused(error.to_string()))?;
        let mut at = 0;
        for part in parts {
            view.slice(at..at + part.len()).copy_from_slice(part);
            at += part.len();
        }
        drop(view);
        slot.used += bytes.next_multiple_of(super::options::ALIGNMENT);
        Ok((&slot.buffer, start))
    }

    /// Makes what was put visible to the GPU. To be called before a submission.
    pub(super) fn seal(&mut self) {
        let slot = &self.slots[self.current];
        if slot.used > 0 {
            slot.buffer.unmap();
        }
    }

    /// Takes the next slot. To be called after the submission that follows [`Writer::seal`].
    pub(super) fn turn(&mut self, submission: &wgpu::SubmissionIndex) {
        let slot = &mut self.slots[self.current];
        if slot.used > 0 {
            slot.mapping = Mapping::request(&slot.buffer, wgpu::MapMode::Write, self.capacity);
            slot.submission = Some(submission.clone());
            slot.used = 0;
            self.current = (self.current + 1) % self.slots.len();
        }
    }
}

/// Reads from the GPU through one buffer.
pub(super) struct Reader {
    buffer: wgpu::Buffer,
}

impl Reader {
    /// A reader of up to `capacity` bytes.
    pub(super) fn new(context: &mut Context, capacity: u64) -> Result<Reader, DeviceError> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        Ok(Reader { buffer: context.buffer("read staging", capacity, usage, false)? })
    }

    /// Where the GPU copies to.
    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Waits for `submission`, then appends the first `bytes` to `out`.
    pub(super) fn take(
        &self,
        context: &Context,
        submission: &wgpu::SubmissionIndex,
        bytes: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), DeviceError> {
        let mapping = Mapping::request(&self.buffer, wgpu::MapMode::Read, bytes);
        context.wait(&mapping, Some(submission))?;
        let view = self.buffer.get_mapped_range(0..bytes).map_err(|error| context.refused(error.to_string()))?;
        out.extend_from_slice(&view);
        drop(view);
        self.buffer.unmap();
        Ok(())
    }
}
