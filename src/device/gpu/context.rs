//! An opened GPU: its handles, its first fault and its counters. All allocation of buffers and all waiting for the
//! GPU happen here.
//!
//! It deliberately knows nothing of tensors or programs. Read `staging` next for how bytes are copied between host
//! and GPU, and `recorder` for how work is submitted.

use super::adapter::{AdapterInfo, largest_tensor, open};
use super::options::{ALIGNMENT, GpuOptions};
use crate::device::Counters;
use crate::device::DeviceError;
use crate::kernel::Numerics;
use crate::wait::{Progress, Wait};
use bytesize::ByteSize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why a device cannot be used any more.
#[derive(Clone, Debug)]
enum Fault {
    Lost(String),
    OutOfMemory(String),
    Refused(String),
    Deadline,
}

/// The first fault of a device. Shared with wgpu's callbacks, which run on whichever thread notices an error.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    fn record(&self, fault: Fault) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Losing the device causes other calls to be refused, so a loss replaces an earlier refusal.
        if first.is_none() || matches!((&*first, &fault), (Some(Fault::Refused(_)), Fault::Lost(_))) {
            *first = Some(fault);
        }
    }

    fn get(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The state of a buffer mapping that was requested: pending, done or failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping(Arc<AtomicU8>);

impl Mapping {
    const MAPPED: u8 = 1;
    const FAILED: u8 = 2;

    /// The mapping of a buffer that was created mapped.
    pub(super) fn mapped() -> Mapping {
        Mapping(Arc::new(AtomicU8::new(Mapping::MAPPED)))
    }

    /// Requests a mapping of the first `bytes` of `buffer`.
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
    /// The orders of sums that the adapter offers.
    pub(super) offered: Vec<Numerics>,
    /// The order in which kernels add up sums.
    pub(super) numerics: Numerics,
    /// The fewest lanes of a subgroup, 0 without subgroup operations.
    pub(super) subgroup: u32,
    /// Whether fused instructions are computed together.
    pub(super) join: bool,
    pub(super) counters: Counters,
    /// Counts finished submissions and created pipelines and buffers, because each may take long within one call.
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
        let (name, mut options) = (info.name.clone(), options.clone());
        let join = options.join.unwrap_or(!info.is_software());
        if info.is_software() {
            // Its work is done by threads of this process, which a loop would keep from running.
            options.spin = Duration::ZERO;
        }
        let offered = info.numerics.clone();
        let numerics = options.numerics.or(offered.first().copied()).unwrap_or(Numerics::Sequential);
        let subgroup = info.subgroup;
        Ok(Context {
            name,
            device,
            queue,
            limits,
            options,
            offered,
            numerics,
            subgroup,
            join,
            counters,
            progress,
            faults,
        })
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> DeviceError {
        DeviceError::Refused { device: self.name.clone(), reason: reason.into() }
    }

    pub(super) fn no_room(&self, what: &str, bytes: u64, reason: impl Into<String>) -> DeviceError {
        DeviceError::OutOfMemory { device: self.name.clone(), what: what.to_string(), bytes, reason: reason.into() }
    }

    /// Errors when the device has had a fault since it was opened.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let mut fault = self.faults.get();
        if let Some(Fault::Refused(_)) = fault {
            // On a lost device a call is refused first; the callback that reports the loss runs only in a later poll.
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

    /// Runs `make` and returns its result, or the error that wgpu reported meanwhile.
    pub(super) fn scoped<T>(&self, make: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Internal, OutOfMemory, Validation].map(|filter| self.device.push_error_scope(filter));
        let made = make();
        self.progress.step();
        let mut first = None;
        // Error scopes nest: the last one pushed is popped first.
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        first.map_or(Ok(made), Err)
    }

    /// Creates a buffer that holds `bytes`. Errors when memory is short.
    pub(super) fn filled(
        &mut self,
        what: &str,
        usage: wgpu::BufferUsages,
        bytes: &[u8],
    ) -> Result<wgpu::Buffer, DeviceError> {
        let buffer = self.buffer(what, bytes.len() as u64, usage, true)?;
        if !bytes.is_empty() {
            let view = buffer.get_mapped_range_mut(0..bytes.len() as u64);
            view.map_err(|error| self.refused(error.to_string()))?.copy_from_slice(bytes);
        }
        buffer.unmap();
        Ok(buffer)
    }

    /// Creates a buffer of at least `bytes`, and of at least one unit of alignment. Errors when memory is short.
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

    /// The largest binding of a tensor in bytes, under the device's limits.
    pub(super) fn largest_binding(&self) -> u64 {
        largest_tensor(self.limits.max_storage_buffer_binding_size, self.limits.max_buffer_size)
    }

    /// Submits `commands`, and counts a step of progress when the GPU has finished them.
    pub(super) fn submit(&mut self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        let submission = self.queue.submit([commands]);
        let progress = self.progress.clone();
        self.queue.on_submitted_work_done(move || progress.step());
        self.counters.submissions += 1;
        submission
    }

    /// Polls the device; returns whether what was waited for is done.
    fn poll(&self, poll: wgpu::PollType) -> bool {
        // wgpu panics when it finds the device lost while polling. The fault is recorded, and the handles are not
        // used again.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(poll)));
        match polled {
            Ok(Ok(status)) => return status.wait_finished(),
            Ok(Err(wgpu::PollError::Timeout)) => {}
            Ok(Err(error)) => self.faults.record(Fault::Refused(error.to_string())),
            Err(_) => self.faults.record(Fault::Lost("found lost while waiting".into())),
        }
        false
    }

    /// Waits until `submission` is done. Errors when there is no progress for as long as the deadline, or the device
    /// is lost.
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

    /// Waits until `mapping`, requested after `submission`, is done. Errors when there is no progress for as long as
    /// the deadline, or the device is lost.
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
            // Short work is noticed sooner by polling in a loop than by sleeping and being woken.
            if start.elapsed() < self.options.spin {
                self.poll(wgpu::PollType::Poll);
                std::hint::spin_loop();
                continue;
            }
            let timeout = Some(wait.slice());
            self.poll(wgpu::PollType::Wait { submission_index: submission.cloned(), timeout });
            if mapping.state() == 0 {
                // The work is done, but the callback has not run yet: let its thread run.
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if matches!(self.faults.get(), Some(Fault::Deadline)) {
            // Dropping the queue waits for its work without a deadline, and would block this thread forever if the
            // device hangs. Leak one reference, so that the queue is never dropped.
            std::mem::forget(self.queue.clone());
        }
    }
}

/// `bytes` rounded up to a size that buffers and bindings may have; never zero.
pub(super) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::super::adapter::adapters;
    use super::*;

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
