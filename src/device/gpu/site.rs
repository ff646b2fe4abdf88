//! What an op finds where it is launched: the shapes, formats and layouts of an instruction's operands, and their buffers.
//!
//! It deliberately launches nothing. Read `prepared` next for who does.

use super::context::{Context, aligned};
use super::memory::Memory;
use crate::format::Format;
use crate::kernel::Layout;
use crate::ops::LaunchContext;
use crate::program::{LocalValue, Place, RankProgram};
use crate::shape::{Env, resolve};
use crate::sharding::Extent;
use std::ops::Range;

/// What the preparation of a call reads: the rank's program and its memory.
#[derive(Clone, Copy)]
pub(super) struct Rank<'a> {
    pub(super) program: &'a RankProgram,
    pub(super) memory: &'a Memory,
    pub(super) run: &'a wgpu::Buffer,
}

/// The shapes, formats, layouts and pieces of an instruction's operands, and the shape of its output.
pub(super) struct Site {
    pub(super) shapes: Vec<Vec<usize>>,
    pub(super) formats: Vec<Format>,
    layouts: Vec<Layout>,
    pub(super) pieces: Vec<Vec<Range<usize>>>,
    pub(super) output: Vec<usize>,
}

impl Site {
    pub(super) fn new(rank: Rank<'_>, env: &Env, inputs: &[usize], output: usize) -> Site {
        let value = |v: usize| &rank.program.values[v];
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|&v| resolve(&value(v).shape, env)).collect();
        Site {
            formats: inputs.iter().map(|&v| format(rank, value(v))).collect(),
            layouts: inputs.iter().map(|&v| layout(rank, value(v))).collect(),
            pieces: inputs.iter().zip(&shapes).map(|(&v, shape)| pieces(rank, value(v), shape)).collect(),
            output: resolve(&value(output).shape, env),
            shapes,
        }
    }

    pub(super) fn context<'a>(&'a self, device: &Context, env: &'a Env, extents: &'a [Extent]) -> LaunchContext<'a> {
        LaunchContext {
            inputs: &self.shapes,
            formats: &self.formats,
            layouts: &self.layouts,
            pieces: &self.pieces,
            extents,
            env,
            output: &self.output,
            numerics: device.numerics,
            subgroup: device.subgroup,
        }
    }
}

fn format(rank: Rank<'_>, value: &LocalValue) -> Format {
    match value.place {
        Place::Weight(w) => rank.memory.weights[w].format,
        Place::Buffer(_) | Place::State(_) => value.dtype.into(),
    }
}

fn layout(rank: Rank<'_>, value: &LocalValue) -> Layout {
    match value.place {
        Place::Weight(w) => rank.memory.weights[w].layout,
        Place::Buffer(_) | Place::State(_) => Layout::Dense,
    }
}

fn pieces(rank: Rank<'_>, value: &LocalValue, shape: &[usize]) -> Vec<Range<usize>> {
    match (value.place, layout(rank, value)) {
        (Place::Weight(w), Layout::Rows) => {
            rank.memory.weights[w].pieces.iter().map(|(range, _)| range.clone()).collect()
        }
        // A value in one buffer. Count the rows of its own shape: a view may have other rows than the weight behind
        // it.
        _ => std::iter::once(0..shape.split_last().map_or(1, |(_, lead)| lead.iter().product())).collect(),
    }
}

/// The buffer range to bind for a value: of a shared buffer only as much as the value fills.
pub(super) fn resource<'a>(rank: Rank<'a>, env: &Env, value: usize, piece: usize) -> Option<wgpu::BindingResource<'a>> {
    let value = &rank.program.values[value];
    if let Place::Weight(w) = value.place {
        return rank.memory.weights.get(w)?.pieces.get(piece).map(|(_, buffer)| buffer.as_entire_binding());
    }
    let buffer = rank.memory.tensor(value.place).filter(|_| piece == 0)?;
    let bytes = resolve(&value.shape, env).iter().product::<usize>() as u64 * 4;
    let size = wgpu::BufferSize::new(aligned(bytes));
    Some(wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size }))
}
