//! Records copies and dispatches in order, and submits them in batches of bounded duration.
//!
//! It deliberately knows no op and no value, only buffers and dispatches. Read `prepared` next for where dispatches
//! come from.

use super::context::Context;
use super::prepared::Dispatch;
use super::staging::{Reader, Writer};
use crate::device::DeviceError;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// A submission that takes longer than this lowers the bound on the next ones. Operating systems reset a GPU that is
/// busy for about two seconds, and nothing else can use the GPU meanwhile.
const LONG: Duration = Duration::from_millis(100);

/// The least bound: smaller submissions take longer to submit than to compute.
const LEAST_OPERATIONS: u64 = 1 << 20;

/// The most dispatches of one submission, whatever they compute: while more are recorded, the GPU would wait.
const MOST_DISPATCHES: u64 = 256;

/// The most submissions that are under way at once. These keep a GPU busy; with more, the wait for the last one of a
/// long call could exceed its deadline although each was done in time.
const UNDER_WAY: usize = 4;

/// Records commands and submits them.
pub(super) struct Recorder {
    writer: Writer,
    reader: Reader,
    // Declared before the encoder, because the pass must be dropped first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// Arithmetic operations that are recorded and not yet submitted.
    operations: u64,
    dispatches: u64,
    /// The number of operations at which a submission ends.
    bound: u64,
    /// Pipelines that have run at least once.
    ran: HashSet<wgpu::ComputePipeline>,
    /// Whether a pipeline ran for the first time since the last read.
    first_run: bool,
    unread: Option<Unread>,
    under_way: VecDeque<wgpu::SubmissionIndex>,
}

/// Counts of what was submitted since the last read.
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

    /// The command encoder; ends the compute pass if one is open.
    fn encoder(&mut self, context: &Context) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()))
    }

    /// Records writing `bytes` to the start of `target`, after everything recorded before.
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
        let (source, offset) = self.writer.put(context, bytes)?;
        let encoder = self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()));
        encoder.copy_buffer_to_buffer(source, offset, target, 0, size);
        Ok(())
    }

    /// Records copying the first `bytes` of `source` to the start of `target`.
    pub(super) fn copy(&mut self, context: &Context, source: &wgpu::Buffer, target: &wgpu::Buffer, bytes: u64) {
        if bytes > 0 {
            self.encoder(context).copy_buffer_to_buffer(source, 0, target, 0, bytes);
        }
    }

    /// Records filling the first `bytes` of `target` with zeros.
    pub(super) fn zero(&mut self, context: &Context, target: &wgpu::Buffer, bytes: u64) {
        if bytes > 0 {
            self.encoder(context).clear_buffer(target, 0, Some(bytes));
        }
    }

    /// Records an op's dispatches, which perform about `operations` in all, and submits if the bound is reached.
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

    /// Submits what is recorded; returns `None` if that is nothing.
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

    /// Submits, and waits until everything that was submitted is done.
    pub(super) fn finish(&mut self, context: &mut Context) -> Result<(), DeviceError> {
        match self.submit(context)? {
            Some(submission) => context.settle(&submission),
            None => Ok(()),
        }
    }

    /// Submits, waits, and calls `with` with the first `bytes` of `source`.
    pub(super) fn read(
        &mut self,
        context: &mut Context,
        source: &wgpu::Buffer,
        bytes: u64,
        with: &mut dyn FnMut(&[u8]),
    ) -> Result<(), DeviceError> {
        if bytes == 0 {
            with(&[]);
            return Ok(());
        }
        if bytes > self.reader.buffer().size() {
            // Larger than any value that the program sends or returns: the caller reads back an activation in
            // between.
            self.reader = Reader::new(context, bytes)?;
        }
        self.pass = None;
        let encoder = self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()));
        encoder.copy_buffer_to_buffer(source, 0, self.reader.buffer(), 0, bytes);
        if let Some(submission) = self.submit(context)? {
            self.reader.take(context, &submission, bytes, with)?;
            self.measure();
        }
        Ok(())
    }

    /// Lowers the bound on submissions if the longest one since the last read must have taken too long.
    ///
    /// Only the total time is measured; the longest submission is assumed to take its share of it by operations.
    /// Times in which a pipeline ran for the first time are ignored, because the driver may have compiled it then.
    fn measure(&mut self) {
        let compiled = std::mem::take(&mut self.first_run);
        if let Some(unread) = self.unread.take()
            && unread.operations > 0
            && !compiled
        {
            let longest = unread.since.elapsed().mul_f64(unread.largest as f64 / unread.operations as f64);
            if longest > LONG {
                // Do not go below what the device computes in that time: a single long op cannot be split by this
                // bound.
                let reached = unread.largest as f64 * (LONG.as_secs_f64() / longest.as_secs_f64());
                self.bound = (self.bound / 2).max(reached as u64).max(LEAST_OPERATIONS).min(self.bound);
            }
        }
    }
}
