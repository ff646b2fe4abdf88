//! Whether programs fit the devices that they are to run on, counted before a device is opened.
//!
//! Two things limit a device: its memory, which it may share with others (everything that runs on the processor
//! shares the machine's memory), and the largest buffer that it binds in one piece. This module deliberately asks no
//! device for either. Read [`crate::device::select`] next for who knows them.

use super::error::{ProgramError, Shortfall, TooWide};
use super::instr::{Place, Program, RankProgram, WeightShard};
use super::memory::Memory;
use super::size::Size;
use crate::kernel::{Layout, weight_bytes, weight_rows};
use crate::shape::{Limits, Shape, Symbol};

/// How a device holds weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Each weight as its [`WeightShard::layout`](super::WeightShard::layout) says: a GPU.
    Laid,
    /// All weights in f32: the host evaluation.
    Widened,
    /// One weight at a time, in f32: the host evaluation of a model that fits nowhere.
    Streamed,
}

/// What is known of the device that a rank is to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Room {
    /// Its name.
    pub device: String,
    /// Bytes of memory that a model may take; `None` when unknown, in which case it is not checked.
    pub memory: Option<u64>,
    /// The number of the memory. Devices with the same number share one memory, and their needs are added.
    pub pool: usize,
    /// Bytes of the largest tensor that it holds in one piece; `None` when there is no limit.
    pub largest: Option<u64>,
    /// How it holds weights.
    pub holding: Holding,
}

impl Room {
    /// A device called `device` of `memory` bytes, all its own.
    pub fn new(device: &str, memory: Option<u64>, pool: usize) -> Room {
        Room { device: device.to_string(), memory, pool, largest: None, holding: Holding::Laid }
    }
}

/// A rank of some program, in sessions whose calls are at most `limits`, and the device that it is to run on.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Tenant<'a> {
    /// The rank's program.
    pub rank: &'a RankProgram,
    /// The largest call.
    pub limits: &'a Limits,
    /// Its device.
    pub room: &'a Room,
}

/// Checks that all tenants fit together.
///
/// Errors with [`ProgramError::DoesNotFit`], which lists every memory that is too small, or with [`ProgramError::TooWide`],
/// which lists the tensors that are too large for one piece.
#[doc(hidden)]
pub fn check(tenants: &[Tenant<'_>]) -> Result<(), ProgramError> {
    let mut pools: Vec<(usize, Vec<&str>, Shortfall)> = Vec::new();
    for &Tenant { rank, limits, room } in tenants {
        let Some(available) = room.memory else { continue };
        let at = pools.iter().position(|(pool, ..)| *pool == room.pool).unwrap_or_else(|| {
            let (ranks, device) = (Vec::new(), String::new());
            pools.push((room.pool, Vec::new(), Shortfall { ranks, device, needed: 0, available }));
            pools.len() - 1
        });
        let (_, devices, shortfall) = &mut pools[at];
        // A rank that stands here twice is of two programs, and a device of several ranks has one name.
        if !shortfall.ranks.contains(&rank.rank) {
            shortfall.ranks.push(rank.rank);
        }
        if !devices.contains(&room.device.as_str()) {
            devices.push(&room.device);
        }
        shortfall.needed = shortfall.needed.saturating_add(rank.memory_as(limits, room.holding).total());
        shortfall.available = shortfall.available.min(available);
    }
    let named = |(_, devices, shortfall): (usize, Vec<&str>, Shortfall)| {
        (shortfall.needed > shortfall.available).then(|| Shortfall { device: devices.join(", "), ..shortfall })
    };
    let shortfalls: Vec<Shortfall> = pools.into_iter().filter_map(named).collect();
    if !shortfalls.is_empty() {
        return Err(ProgramError::DoesNotFit { shortfalls });
    }
    let tensors: Vec<TooWide> = tenants.iter().flat_map(|t| t.rank.too_wide(t.limits, t.room)).collect();
    if tensors.is_empty() { Ok(()) } else { Err(ProgramError::TooWide { tensors }) }
}

/// How a tensor that does not fit in one piece can be made smaller.
fn advice(shape: &Shape, limits: &Limits) -> &'static str {
    let symbols = Size::of(shape).symbols;
    let per_call = symbols.iter().any(|s| matches!(s, Symbol::Batch | Symbol::Seq | Symbol::Keep));
    match (symbols.contains(&Symbol::Capacity), per_call, limits.batch > 1) {
        (_, true, true) => "take fewer texts at once or a smaller context",
        (true, ..) | (_, true, _) => "use a smaller context",
        (false, false, _) => "cut it over more devices, or otherwise",
    }
}

impl RankProgram {
    /// What the rank needs in sessions whose calls are at most `limits`, on a device that holds weights as `holding`.
    #[doc(hidden)]
    pub fn memory_as(&self, limits: &Limits, holding: Holding) -> Memory {
        let dense = |w: &WeightShard, shape: &[usize]| weight_bytes(w.format, shape, Layout::Dense);
        let each = self.weights.iter().map(|w| (w, w.local_shape(limits)));
        let weights = match holding {
            Holding::Laid => return self.memory(limits),
            Holding::Widened => each.map(|(w, shape)| dense(w, &shape)).fold(0, u64::saturating_add),
            Holding::Streamed => each.map(|(w, shape)| dense(w, &shape)).max().unwrap_or(0),
        };
        Memory { weights, ..self.memory(limits) }
    }

    /// The largest activation in one piece, in calls up to `limits`: its index and its bytes.
    fn widest_activation(&self, limits: &Limits) -> Option<(usize, u64)> {
        let bytes = |v: usize| (Size::of(&self.values[v].shape).max(limits) as u64).saturating_mul(4);
        let activations = (0..self.values.len()).filter(|&v| matches!(self.values[v].place, Place::Buffer(_)));
        activations.map(|v| (v, bytes(v))).max_by_key(|(_, bytes)| *bytes)
    }

    /// Whether every activation of calls up to `limits` fits in one piece of `room`'s device.
    #[doc(hidden)]
    pub fn activations_fit(&self, limits: &Limits, room: &Room) -> bool {
        let widest = self.widest_activation(limits).map_or(0, |(_, bytes)| bytes);
        room.largest.is_none_or(|largest| widest <= largest)
    }

    /// The activation, the state and the weights that are the largest of those too large for one piece of `room`'s
    /// device.
    fn too_wide(&self, limits: &Limits, room: &Room) -> Vec<TooWide> {
        let Some(largest) = room.largest else { return Vec::new() };
        let activation = self.widest_activation(limits).map(|(v, bytes)| {
            let value = &self.values[v];
            (format!("the value {}", value.name), bytes, advice(&value.shape, limits))
        });
        let states = self.values.iter().filter(|value| matches!(value.place, Place::State(_)));
        let states = states.map(|value| {
            let bytes = (Size::of(&value.shape).max(limits) as u64).saturating_mul(4);
            (format!("the state {}", value.name), bytes, advice(&value.shape, limits))
        });
        let weight = |w: &WeightShard| {
            let shape = w.local_shape(limits);
            let piece = match w.layout {
                Layout::Dense => ("", weight_bytes(w.format, &shape, Layout::Dense)),
                // A weight is split between rows over several buffers, so that one row is the smallest piece.
                Layout::Rows => ("a row of ", weight_rows(w.format, &shape, Layout::Rows).1 as u64),
            };
            (format!("{}the weight {}", piece.0, w.name), piece.1, advice(&w.shape, limits))
        };
        let scratch = (self.scratch(limits) as u64).saturating_mul(4);
        let widest = [
            activation,
            Some(("the memory that ops work in".to_string(), scratch, "use a smaller context")),
            states.max_by_key(|(_, bytes, _)| *bytes),
            self.weights.iter().map(weight).max_by_key(|(_, bytes, _)| *bytes),
        ];
        let (rank, device) = (self.rank, &room.device);
        let wide = |(tensor, bytes, advice)| TooWide { rank, device: device.clone(), tensor, bytes, largest, advice };
        widest.into_iter().flatten().filter(|(_, bytes, _)| *bytes > largest).map(wide).collect()
    }
}

impl Program {
    /// Checks that the devices can hold it in sessions whose calls are at most `limits`; `rooms` gives each rank's.
    ///
    /// Errors as [`check`].
    #[doc(hidden)]
    pub fn check(&self, limits: &Limits, rooms: &[Room]) -> Result<(), ProgramError> {
        check(&self.tenants(limits, rooms))
    }

    /// Its ranks, each on its device.
    #[doc(hidden)]
    pub fn tenants<'a>(&'a self, limits: &'a Limits, rooms: &'a [Room]) -> Vec<Tenant<'a>> {
        self.ranks.iter().zip(rooms).map(|(rank, room)| Tenant { rank, limits, room }).collect()
    }
}
