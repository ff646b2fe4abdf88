//! An opened GPU: its handles, what went wrong on it, its counters, and the only places that allocate or wait.
//!
//! It deliberately knows nothing of tensors or programs. Read `staging` next for how bytes cross, and
//! `recorder` for how work is submitted.

use super::adapter::{AdapterInfo, largest_tensor, open};
use super::options::{ALIGNMENT, GpuOptions};
use crate::device::Counters;
use crate::device::DeviceError;

use crate::wait::{Progress, Wait};
use bytesize::ByteSize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Why a device is of no more use.
#[derive(Clone, Debug)]
enum Fault {
    Lost(String),
    OutOfMemory(String),
    Refused(String),
    Deadline,
}

/// The first fault of a device, shared with the callbacks that wgpu calls from wherever it notices.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    fn record(&self, fault: Fault) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A loss explains whatever was refused because of it.
        if first.is_none() || matches!((&*first, &fault), (Some(Fault::Refused(_)), Fault::Lost(_))) {
            *first = Some(fault);
        }
    }

    fn get(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether a mapping that was asked for has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping(Arc<AtomicU8>);

impl Mapping {
    const MAPPED: u8 = 1;
    const FAILED: u8 = 2;

    /// The mapping of a buffer that was created mapped.
    pub(super) fn mapped() -> Mapping {
        Mapping(Arc::new(AtomicU8::new(Mapping::MAPPED)))
    }

    /// Asks for the first `bytes` of `buffer`.
    pub(super) fn request(buffer: &wgpu::Buffer, mode: wgpu::MapMode, bytes: u64) -> Mapping {
        let mapping = Mapping::default();
        let state = mapping.0.clone();
        buffer.map_async(mode, 0..bytes, move |result| {
            state.store(if result.is_ok() { Mapping::MAPPED } else { Mapping::FAILED }, Ordering::Release);
        });
        mapping
    }

    fn state(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// An opened GPU.
pub(super) struct Context {
    pub(super) name: String,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    pub(super) options: GpuOptions,
    pub(super) counters: Counters,
    /// Counts submissions that are done, pipelines and buffers that are made: whatever may take long within one call.
    pub(super) progress: Progress,
    faults: Faults,
}

impl Context {
    pub(super) fn open(info: &AdapterInfo, options: &GpuOptions) -> Result<Context, DeviceError> {
        let (device, queue) = open(info)?;
        let faults = Faults::default();
        let lost = faults.clone();
        device.set_device_lost_callback(move |_, reason| lost.record(Fault::Lost(reason)));
        let uncaptured = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            uncaptured.record(match &error {
                wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory(error.to_string()),
                wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => Fault::Refused(error.to_string()),
            });
        }));
        let (limits, counters, progress) = (device.limits(), Counters::default(), Progress::default());
        let (name, options) = (info.name.clone(), options.clone());
        Ok(Context { name, device, queue, limits, options, counters, progress, faults })
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> DeviceError {
        DeviceError::Refused { device: self.name.clone(), reason: reason.into() }
    }

    pub(super) fn no_room(&self, what: &str, bytes: u64, reason: impl Into<String>) -> DeviceError {
        DeviceError::OutOfMemory { device: self.name.clone(), what: what.to_string(), bytes, reason: reason.into() }
    }

    /// Errors when anything has gone wrong since the device was opened.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let mut fault = self.faults.get();
        if let Some(Fault::Refused(_)) = fault {
            // A call on a lost device is refused before the loss is told, which takes a poll.
            self.poll(wgpu::PollType::Poll);
            fault = self.faults.get();
        }
        let device = self.name.clone();
        Err(match fault {
            None => return Ok(()),
            Some(Fault::Lost(reason)) => DeviceError::Lost { device, reason },
            Some(Fault::OutOfMemory(reason)) => self.no_room("an internal allocation", 0, reason),
            Some(Fault::Refused(reason)) => DeviceError::Refused { device, reason },
            Some(Fault::Deadline) => DeviceError::Deadline { device, deadline: self.options.deadline },
        })
    }

    /// Runs `make` and returns what it made, or the error it met.
    pub(super) fn scoped<T>(&self, make: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Internal, OutOfMemory, Validation].map(|filter| self.device.push_error_scope(filter));
        let made = make();
        self.progress.step();
        let mut first = None;
        // Scopes nest, so the last pushed is the first to be popped.
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        first.map_or(Ok(made), Err)
    }

    /// Creates a buffer of at least `bytes` and never none. Errors when there is no room.
    pub(super) fn buffer(
        &mut self,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer, DeviceError> {
        let size = aligned(bytes);
        if size > self.limits.max_buffer_size {
            let largest = ByteSize::b(self.limits.max_buffer_size);
            let reason = format!("a buffer of this adapter holds at most {largest}");
            return Err(self.no_room(what, bytes, reason));
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: mapped };
        let buffer = self.scoped(|| self.device.create_buffer(&descriptor)).map_err(|error| {
            self.poll(wgpu::PollType::Poll);
            self.no_room(what, bytes, error.to_string())
        });
        self.check()?;
        self.counters.buffers += 1;
        buffer
    }

    /// The largest storage binding of a tensor that is in one piece.
    pub(super) fn largest_binding(&self) -> u64 {
        largest_tensor(self.limits.max_storage_buffer_binding_size, self.limits.max_buffer_size)
    }

    /// Submits `commands`, and counts them as progress when they are done.
    pub(super) fn submit(&mut self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        let submission = self.queue.submit([commands]);
        let progress = self.progress.clone();
        self.queue.on_submitted_work_done(move || progress.step());
        self.counters.submissions += 1;
        submission
    }

    /// Whether what was polled for has come.
    fn poll(&self, poll: wgpu::PollType) -> bool {
        // wgpu panics where a device is found lost while polling; the handles are not used after that.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(poll)));
        match polled {
            Ok(Ok(status)) => return status.wait_finished(),
            Ok(Err(wgpu::PollError::Timeout)) => {}
            Ok(Err(error)) => self.faults.record(Fault::Refused(error.to_string())),
            Err(_) => self.faults.record(Fault::Lost("found lost while waiting".into())),
        }
        false
    }

    /// Waits until `submission` is done. Errors when there is no progress for the deadline, or the device is lost.
    pub(super) fn settle(&self, submission: &wgpu::SubmissionIndex) -> Result<(), DeviceError> {
        let mut wait = Wait::new(&self.progress, self.options.deadline);
        loop {
            let timeout = Some(wait.slice());
            let done = self.poll(wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout });
            self.check()?;
            if done {
                return Ok(());
            }
            if wait.expired() {
                self.faults.record(Fault::Deadline);
            }
        }
    }

    /// Waits until `mapping`, which follows `submission`, has come. Errors when there is no progress for the deadline,
    /// or the device is lost.
    pub(super) fn wait(
        &self,
        mapping: &Mapping,
        submission: Option<&wgpu::SubmissionIndex>,
    ) -> Result<(), DeviceError> {
        let start = Instant::now();
        let mut wait = Wait::new(&self.progress, self.options.deadline);
        loop {
            match mapping.state() {
                Mapping::MAPPED => return Ok(()),
                Mapping::FAILED => {
                    self.faults.record(Fault::Refused("a buffer could not be mapped".into()));
                    return self.check();
                }
                _ => self.check()?,
            }
            if wait.expired() {
                self.faults.record(Fault::Deadline);
                return self.check();
            }
            // A short answer is met faster awake than by being woken.
            if start.elapsed() < self.options.spin {
                self.poll(wgpu::PollType::Poll);
                std::hint::spin_loop();
                continue;
            }
            let timeout = Some(wait.slice());
            self.poll(wgpu::PollType::Wait { submission_index: submission.cloned(), timeout });
            if mapping.state() == 0 {
                // The work is done but the callback is not: leave it the processor.
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if matches!(self.faults.get(), Some(Fault::Deadline)) {
            // Dropping the queue waits for its work without a limit; a device that hangs would take this thread along.
            std::mem::forget(self.queue.clone());
        }
    }
}

/// `bytes` as the size of a buffer or binding: never zero.
pub(super) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::super::adapter::adapters;
    use super::*;

    use std::time::Duration;

    #[test]
    fn a_lost_device_ends_a_wait_and_refuses_what_follows() {
        for info in adapters() {
            let mut context = Context::open(&info, &GpuOptions::default()).unwrap();
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let buffer = context.buffer("staging", 64, usage, false).unwrap();
            context.device.destroy();
            let start = Instant::now();
            let waited = context.wait(&Mapping::request(&buffer, wgpu::MapMode::Read, 64), None);
            assert!(matches!(waited, Err(DeviceError::Lost { .. })), "{waited:?}");
            let made = context.buffer("staging", 64, usage, false).map(|_| ());
            assert!(matches!(made, Err(DeviceError::Lost { .. })), "{made:?}");
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    }
}
