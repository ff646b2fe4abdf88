//! The work of a device in order: copies and dispatches gathered into submissions of bounded length.
//!
//! It deliberately knows no op and no value, only buffers and dispatches. Read `prepared` next for where
//! dispatches come from.

use super::context::Context;
use super::prepared::Dispatch;
use super::staging::{Reader, Writer};
use crate::device::DeviceError;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// A submission that took longer than this halves the bound on the next: a system resets a GPU that is busy for some
/// two seconds, and nothing else can use it meanwhile.
const LONG: Duration = Duration::from_millis(100);

/// The bound is not lowered beyond this: smaller submissions cost more than they compute.
const LEAST_OPERATIONS: u64 = 1 << 20;

/// Dispatches of one submission, whatever they compute: recording more would only let the GPU wait.
const MOST_DISPATCHES: u64 = 256;

/// Submissions that may be under way at once: enough to keep a GPU fed. With more, a wait for the last of a long call
/// would meet its deadline although each was done in time.
const UNDER_WAY: usize = 4;

/// Records and submits.
pub(super) struct Recorder {
    writer: Writer,
    reader: Reader,
    // Before the encoder, because it must end first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// Arithmetic operations and dispatches recorded and not yet submitted.
    operations: u64,
    dispatches: u64,
    /// Operations at which a submission ends.
    bound: u64,
    /// Pipelines that have run, and whether one of them ran for the first time since the last read.
    ran: HashSet<wgpu::ComputePipeline>,
    first_run: bool,
    unread: Option<Unread>,
    under_way: VecDeque<wgpu::SubmissionIndex>,
}

/// What has been submitted since the last read.
struct Unread {
    since: Instant,
    operations: u64,
    largest: u64,
}

impl Recorder {
    pub(super) fn new(context: &Context, writer: Writer, reader: Reader) -> Recorder {
        let bound = context.options.submission.max(LEAST_OPERATIONS);
        let (pass, encoder, unread, under_way, ran) = Default::default();
        let (operations, dispatches, first_run) = (0, 0, false);
        Recorder { writer, reader, pass, encoder, operations, dispatches, bound, ran, first_run, unread, under_way }
    }

    /// The encoder outside any pass.
    fn encoder(&mut self, context: &Context) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()))
    }

    /// Writes `bytes` to the start of `target`, after all that was recorded before.
    pub(super) fn write(
        &mut self,
        context: &mut Context,
        target: &wgpu::Buffer,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let size = bytes.len() as u64;
        if size == 0 {
            return Ok(());
        }
        self.pass = None;
        if !self.writer.takes(size) {
            self.submit(context)?;
        }
        let (source, offset) = self.writer.put(context, size, std::iter::once(bytes))?;
        let encoder = self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()));
        encoder.copy_buffer_to_buffer(source, offset, target, 0, size);
        Ok(())
    }

    /// Fills the first `bytes` of `target` with zeros.
    pub(super) fn zero(&mut self, context: &Context, target: &wgpu::Buffer, bytes: u64) {
        if bytes > 0 {
            self.encoder(context).clear_buffer(target, 0, Some(bytes));
        }
    }

    /// Records an op's dispatches, which perform `operations` in all, and submits when enough has come together.
    pub(super) fn dispatch(
        &mut self,
        context: &mut Context,
        dispatches: &[Dispatch],
        operations: u64,
    ) -> Result<(), DeviceError> {
        for dispatch in dispatches {
            if self.pass.is_none() {
                let pass = self.encoder(context).begin_compute_pass(&Default::default()).forget_lifetime();
                self.pass = Some(pass);
            }
            if let Some(pass) = &mut self.pass {
                let [x, y, z] = dispatch.groups;
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &dispatch.bindings, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
            if !self.ran.contains(&dispatch.pipeline) {
                self.ran.insert(dispatch.pipeline.clone());
                self.first_run = true;
            }
            context.counters.dispatches += 1;
            self.dispatches += 1;
        }
        self.operations += operations;
        if self.operations >= self.bound || self.dispatches >= MOST_DISPATCHES {
            self.submit(context)?;
        }
        Ok(())
    }

    /// Submits what is recorded, if anything.
    fn submit(&mut self, context: &mut Context) -> Result<Option<wgpu::SubmissionIndex>, DeviceError> {
        self.pass = None;
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        self.writer.seal();
        let submission = context.submit(encoder.finish());
        self.writer.turn(&submission);
        let unread = self.unread.get_or_insert_with(|| Unread { since: Instant::now(), operations: 0, largest: 0 });
        unread.operations += self.operations;
        unread.largest = unread.largest.max(self.operations);
        (self.operations, self.dispatches) = (0, 0);
        context.check()?;
        self.under_way.push_back(submission.clone());
        if self.under_way.len() > UNDER_WAY
            && let Some(oldest) = self.under_way.pop_front()
        {
            context.settle(&oldest)?;
        }
        Ok(Some(submission))
    }

    /// Reads the first `bytes` of `source` into `out`, after all that was recorded before.
    pub(super) fn read(
        &mut self,
        context: &mut Context,
        source: &wgpu::Buffer,
        bytes: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), DeviceError> {
        if bytes > self.reader.buffer().size() {
            // More than a program sends or returns: somebody looks at what lies between.
            self.reader = Reader::new(context, bytes)?;
        }
        if bytes > 0 {
            self.pass = None;
            let encoder =
                self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()));
            encoder.copy_buffer_to_buffer(source, 0, self.reader.buffer(), 0, bytes);
            if let Some(submission) = self.submit(context)? {
                self.reader.take(context, &submission, bytes, out)?;
                self.measure();
            }
        }
        Ok(())
    }

    /// Shortens submissions when the longest since the last read must have taken too long.
    ///
    /// Only their sum is measured; the longest is its share of it by operations. A driver may compile a pipeline when
    /// it first runs, which says nothing of how long its operations take.
    fn measure(&mut self) {
        let compiled = std::mem::take(&mut self.first_run);
        if let Some(unread) = self.unread.take()
            && unread.operations > 0
            && !compiled
        {
            let longest = unread.since.elapsed().mul_f64(unread.largest as f64 / unread.operations as f64);
            if longest > LONG {
                // No lower than what the device does in that time: one long op cannot be shortened by this.
                let reached = unread.largest as f64 * (LONG.as_secs_f64() / longest.as_secs_f64());
                self.bound = (self.bound / 2).max(reached as u64).max(LEAST_OPERATIONS).min(self.bound);
            }
        }
    }
}
