//! Staging buffers, through which bytes are copied between host and GPU. They are created once and reused.
//!
//! wgpu's own `write_buffer` creates a buffer per call, which is too slow for a decode step. This file deliberately
//! does not know what the bytes mean. Read `recorder` next for when copies happen.

use super::context::{Context, Mapping, aligned};
use crate::device::DeviceError;

use wgpu::BufferUsages;

/// A buffer that the host fills and the GPU copies from.
struct Slot {
    buffer: wgpu::Buffer,
    mapping: Mapping,
    submission: Option<wgpu::SubmissionIndex>,
    used: u64,
}

/// Writes to the GPU through several slots in turn: the host fills one while the GPU copies from the others.
pub(super) struct Writer {
    slots: Vec<Slot>,
    current: usize,
    capacity: u64,
}

impl Writer {
    /// A writer of `slots` slots of `capacity` bytes each.
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

    /// Whether the current slot has room for `bytes` more.
    pub(super) fn takes(&self, bytes: u64) -> bool {
        self.slots[self.current].used + bytes <= self.capacity
    }

    /// Copies `bytes` into the current slot. Returns the slot's buffer and the offset. Errors when the slot lacks room, or does
    /// not become free within the deadline.
    pub(super) fn put(&mut self, context: &Context, bytes: &[u8]) -> Result<(&wgpu::Buffer, u64), DeviceError> {
        let size = bytes.len() as u64;
        if !self.takes(size) {
            return Err(context.refused(format!("{size} bytes exceed the staging of {}", self.capacity)));
        }
        let slot = &mut self.slots[self.current];
        context.wait(&slot.mapping, slot.submission.as_ref())?;
        let start = slot.used;
        let view = slot.buffer.get_mapped_range_mut(start..start + size);
        let mut view = view.map_err(|error| context.refused(error.to_string()))?;
        view.slice(..).copy_from_slice(bytes);
        drop(view);
        slot.used += size.next_multiple_of(super::options::ALIGNMENT);
        Ok((&slot.buffer, start))
    }

    /// Unmaps the current slot, so that the GPU may read it. Call it before a submission.
    pub(super) fn seal(&mut self) {
        let slot = &self.slots[self.current];
        if slot.used > 0 {
            slot.buffer.unmap();
        }
    }

    /// Switches to the next slot. Call it after the submission that follows [`Writer::seal`].
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

/// Reads from the GPU through one staging buffer.
pub(super) struct Reader {
    buffer: wgpu::Buffer,
}

impl Reader {
    /// A reader for up to `capacity` bytes at a time.
    pub(super) fn new(context: &mut Context, capacity: u64) -> Result<Reader, DeviceError> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        Ok(Reader { buffer: context.buffer("read staging", capacity, usage, false)? })
    }

    /// The buffer that the GPU copies to.
    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Waits for `submission`, then calls `with` with the first `bytes` of the buffer.
    pub(super) fn take(
        &self,
        context: &Context,
        submission: &wgpu::SubmissionIndex,
        bytes: u64,
        with: &mut dyn FnMut(&[u8]),
    ) -> Result<(), DeviceError> {
        let mapping = Mapping::request(&self.buffer, wgpu::MapMode::Read, bytes);
        context.wait(&mapping, Some(submission))?;
        let view = self.buffer.get_mapped_range(0..bytes).map_err(|error| context.refused(error.to_string()))?;
        with(&view);
        drop(view);
        self.buffer.unmap();
        Ok(())
    }
}
