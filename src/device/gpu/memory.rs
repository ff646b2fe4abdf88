//! The memory of one rank on a GPU: scratch buffers, KV caches, and weights, which are read, repacked and uploaded
//! block by block.
//!
//! It deliberately does not know what ops do with them, and [`crate::kernel::weight_rows`] decides the layout of weights.
//! Read `prepared` next for how buffers are bound.

use super::context::{Context, aligned};
use super::options::ALIGNMENT;
use super::staging::Writer;
use crate::device::DeviceError;

use crate::format::{Format, Stored};
use crate::kernel::Layout;
use crate::program::{Place, RankProgram, WeightPart, WeightShard};
use crate::shape::{Limits, resolve};
use crate::tensor::Region;
use crate::weights::{SourceError, Weights};
use bytesize::ByteSize;
use std::ops::Range;
use wgpu::BufferUsages;

/// The most bytes of a weight that are in host memory at a time, unless a row has more. So few stay in a processor's cache between
/// being read and being copied to the device.
const BLOCK: usize = 1 << 20;

/// A weight on the device.
pub(super) struct Held {
    /// The format in which ops find it.
    pub(super) format: Format,
    /// Its layout in memory.
    pub(super) layout: Layout,
    /// Length of one row in bytes, padding included.
    row: usize,
    /// The buffers that hold it, each with the range of rows in it.
    pub(super) pieces: Vec<(Range<usize>, wgpu::Buffer)>,
}

/// All buffers of a rank.
pub(super) struct Memory {
    buffers: Vec<wgpu::Buffer>,
    states: Vec<wgpu::Buffer>,
    pub(super) weights: Vec<Held>,
    /// What the launches of an op pass to one another. Ops run one after another, so that one buffer serves all.
    pub(super) scratch: Option<wgpu::Buffer>,
}

impl Memory {
    /// Allocates memory for calls up to `limits` and loads the weights.
    pub(super) fn load(
        context: &mut Context,
        program: &RankProgram,
        limits: &Limits,
        weights: &dyn Weights,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Memory, DeviceError> {
        // Allocate everything before reading any weight, so that a lack of memory is found at once.
        let buffers = program.buffers.iter().map(|size| size.max(limits) as u64);
        let buffers = buffers.map(|n| tensor(context, "activations", n)).collect::<Result<_, DeviceError>>()?;
        let states = program.states.iter().map(|shape| resolve(shape, limits).iter().product::<usize>() as u64);
        let states = states.map(|n| tensor(context, "state", n)).collect::<Result<_, DeviceError>>()?;
        let words = program.scratch(limits);
        let scratch = (words > 0).then(|| tensor(context, "scratch", words as u64)).transpose()?;
        let stored = program.weights.iter().map(|shard| allocate(context, shard, limits));
        let stored: Vec<Held> = stored.collect::<Result<_, DeviceError>>()?;
        let mut uploads = Uploads::new(context, program.upload_slot(limits))?;
        for (shard, stored) in program.weights.iter().zip(&stored) {
            if let WeightPart::Region(window) = &shard.part {
                let shape = resolve(&shard.shape, limits);
                let source = |region: &Region| weights.read_stored(&shard.name, &shape, region, shard.format);
                uploads.weight(context, stored, shard, window.resolve(&shape), &source, progress)?;
            }
        }
        uploads.submit(context)?;
        Ok(Memory { buffers, states, weights: stored, scratch })
    }

    /// The buffer of an activation, a KV cache, or a weight stored like an activation.
    pub(super) fn tensor(&self, place: Place) -> Option<&wgpu::Buffer> {
        match place {
            Place::Buffer(i) => self.buffers.get(i),
            Place::State(i) => self.states.get(i),
            // Ops can read a weight in the dense layout as an activation.
            Place::Weight(i) => self.weights.get(i).filter(|w| w.layout == Layout::Dense).map(|w| &w.pieces[0].1),
        }
    }
}

/// Allocates a tensor of `elements` 32-bit elements for ops to read and write. It fits one binding, and starts as
/// zeros as all memory from wgpu does.
fn tensor(context: &mut Context, what: &str, elements: u64) -> Result<wgpu::Buffer, DeviceError> {
    let (bytes, largest) = (elements.saturating_mul(4), context.largest_binding());
    if bytes > largest {
        let largest = ByteSize::b(largest);
        let reason = format!("a binding of this adapter holds at most {largest}: use a smaller context");
        return Err(context.no_room(what, bytes, reason));
    }
    context.buffer(what, bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST, false)
}

fn allocate(context: &mut Context, shard: &WeightShard, limits: &Limits) -> Result<Held, DeviceError> {
    let (rows, row) = shard.rows(limits);
    let largest = context.options.max_binding.map_or(u64::MAX, |b| b - b % ALIGNMENT).min(context.largest_binding());
    let dense = shard.layout == Layout::Dense;
    // The dense layout is never split over buffers.
    let max = if dense { rows } else { (largest / row.max(1) as u64).min(rows as u64) as usize };
    let whole = (rows as u64).saturating_mul(row as u64);
    if (max == 0 && whole > 0) || (dense && whole > context.largest_binding()) {
        let (bytes, part) = if dense { (whole, "all of it") } else { (row as u64, "one row") };
        let largest = ByteSize::b(if dense { context.largest_binding() } else { largest });
        let reason = format!("a binding of this adapter holds at most {largest}, less than {part}");
        return Err(context.no_room(&format!("weight {}", shard.name), bytes, reason));
    }
    let mut pieces = Vec::new();
    let mut start = 0;
    loop {
        let end = (start + max.max(1)).min(rows);
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = context.buffer(&shard.name, ((end - start) * row) as u64, usage, false)?;
        pieces.push((start..end, buffer));
        start = end;
        if start >= rows {
            let format = if dense { shard.format.dtype().into() } else { shard.format };
            return Ok(Held { format, layout: shard.layout, row, pieces });
        }
    }
}

/// Splits `region` into regions of at most `max` bytes, in the order of its rows. A row is never split.
fn blocks(region: &Region, max: usize) -> Vec<Region> {
    let mut done = Vec::new();
    let mut rest = if region.numel() == 0 { Vec::new() } else { vec![(region.clone(), 0)] };
    while let Some((part, dim)) = rest.pop() {
        // Count four bytes per element, the most of any dtype: blocks may be smaller than necessary, never larger.
        let slab = part.0[dim + 1..].iter().map(|r| r.len()).product::<usize>() * 4;
        let (range, step) = (part.0[dim].clone(), (max / slab).max(1));
        let parts = range.clone().step_by(step).map(|start| {
            let mut block = part.clone();
            block.0[dim] = start..(start + step).min(range.end);
            block
        });
        if slab > max && dim + 2 < part.0.len() {
            // One expert of a stacked weight may be larger than a block: split the parts again along the next
            // dimension, the first part first.
            rest.extend(parts.map(|part| (part, dim + 1)).collect::<Vec<_>>().into_iter().rev());
        } else {
            done.extend(parts);
        }
    }
    done
}

/// Uploads rows through staging buffers, each of which is filled before it is submitted.
struct Uploads {
    writer: Writer,
    /// Bytes of each buffer.
    slot: usize,
    encoder: Option<wgpu::CommandEncoder>,
}

impl Uploads {
    /// Two buffers of `slot` bytes.
    fn new(context: &mut Context, slot: u64) -> Result<Uploads, DeviceError> {
        let writer = Writer::new(context, 2, slot)?;
        context.counters.staging_bytes += 2 * aligned(slot);
        Ok(Uploads { writer, slot: slot as usize, encoder: None })
    }

    /// Reads the shard of a weight block by block and uploads it.
    fn weight(
        &mut self,
        context: &mut Context,
        held: &Held,
        shard: &WeightShard,
        region: Region,
        read: &dyn Fn(&Region) -> Result<Stored, SourceError>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DeviceError> {
        // A vector is one row, and so is a number.
        let parts = if region.0.len() < 2 { vec![region] } else { blocks(&region, BLOCK) };
        let mut at = 0;
        for part in parts {
            let stored = read(&part)?;
            progress(stored.bytes().len() as u64);
            let count = part.0.split_last().map_or(1, |(_, lead)| lead.iter().map(|r| r.len()).product());
            match held.layout {
                Layout::Rows => self.rows(context, held, at, count, &stored.device_rows())?,
                Layout::Dense => {
                    let unstored = |cause| SourceError::unstored(&shard.name, cause);
                    self.rows(context, held, at, count, stored.values().map_err(unstored)?.bytes())?;
                }
            }
            at += count;
        }
        Ok(())
    }

    /// Uploads `count` rows, the first of which is row `at` of the shard.
    fn rows(
        &mut self,
        context: &mut Context,
        held: &Held,
        at: usize,
        count: usize,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let length = held.row;
        if bytes.len() != count * length {
            let (found, expected) = (bytes.len(), count * length);
            return Err(context.refused(format!("{found} bytes for {count} rows of a weight, expected {expected}")));
        }
        let max = (self.slot / length.max(1)).max(1);
        for (range, buffer) in &held.pieces {
            let (mut row, end) = (range.start.max(at), range.end.min(at + count));
            while row < end && length > 0 {
                let n = max.min(end - row);
                let size = (n * length) as u64;
                if !self.writer.takes(size) {
                    self.submit(context)?;
                }
                let rows = &bytes[(row - at) * length..][..n * length];
                let (source, offset) = self.writer.put(context, rows)?;
                let encoder =
                    self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()));
                encoder.copy_buffer_to_buffer(source, offset, buffer, ((row - range.start) * length) as u64, size);
                context.counters.weight_bytes += size;
                row += n;
            }
        }
        Ok(())
    }

    /// Submits the rows gathered so far, and goes on with the other slot.
    fn submit(&mut self, context: &mut Context) -> Result<(), DeviceError> {
        if let Some(encoder) = self.encoder.take() {
            self.writer.seal();
            let submission = context.submit(encoder.finish());
            self.writer.turn(&submission);
        }
        context.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_rows_in_their_order() {
        for (ranges, max, expected) in [
            (vec![3..10, 0..5], 60, 3),
            (vec![3..10, 0..5], 1, 7),
            (vec![0..3, 2..6, 1..4], 1 << 20, 1),
            (vec![0..3, 2..6, 1..4], 48, 3),
            (vec![0..3, 2..6, 1..4], 36, 6),
            (vec![0..3, 2..6, 1..4], 1, 12),
            (vec![0..2, 0..2, 0..3, 0..2], 16, 8),
            (vec![0..3, 2..2, 1..4], 48, 0),
        ] {
            let region = Region(ranges);
            let found = blocks(&region, max);
            assert_eq!(found.len(), expected, "{region:?} in {max} bytes");
            // The first element of every row, block after block.
            let rows = |region: &Region| {
                region.0[..region.0.len() - 1].iter().fold(vec![vec![]], |heads: Vec<Vec<usize>>, range| {
                    let next = |head: &Vec<usize>| range.clone().map(|i| [head.clone(), vec![i]].concat()).collect();
                    heads.iter().flat_map(|head| -> Vec<Vec<usize>> { next(head) }).collect()
                })
            };
            assert_eq!(found.iter().flat_map(rows).collect::<Vec<_>>(), rows(&region));
            assert!(found.iter().all(|block| block.0.last() == region.0.last()));
        }
    }
}
