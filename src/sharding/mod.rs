//! How one op may be divided over ranks: factors, sharding rules, cuts and placements. Pure mathematics.
//!
//! It deliberately knows no op, no graph and no device: an op states its dimensions once, and every way to split it
//! is derived here. Read [`crate::ops`] next for the rules that ops state, then [`crate::plan`] for who chooses.
//!
//! The idea is T. Dettmers' ("How to Parallelize Deep Learning on GPUs, part 2: Model Parallelism"): cut a weight
//! along its second dimension and stack the partial outputs, or along its first and add them. Factors and their
//! notation follow Shardy and einops, placements follow PyTorch's DTensor.

mod error;

pub use error::ShardingError;

mod cut;
mod rule;

pub use cut::Cut;
pub(crate) use cut::gcd;
pub use rule::{Extent, Factor, RuleBuilder, ShardingRule};

use crate::shape::{Dim, Shape};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which part of one tensor each rank holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[doc(hidden)]
pub enum Placement {
    /// Every rank holds the whole tensor.
    Replicate,
    /// Each rank holds one interval of dimension `dim`.
    Shard {
        /// The dimension.
        dim: usize,
        /// The intervals, in elements of that dimension.
        cut: Cut,
    },
    /// Each rank holds a tensor of the whole shape; the tensor meant is their sum over the ranks.
    Partial,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Replicate => f.pad("Replicate"),
            Placement::Shard { dim, cut } => f.pad(&format!("Shard({dim}: {cut})")),
            Placement::Partial => f.pad("Partial(Sum)"),
        }
    }
}

impl Placement {
    /// The shape of `rank`'s part of a tensor of `shape`.
    pub fn local_shape(&self, shape: &[Dim], rank: usize) -> Shape {
        let mut local = shape.to_vec();
        if let Placement::Shard { dim, cut } = self {
            local[*dim] = Dim::Fixed(cut.range(rank).len());
        }
        local
    }
}

/// The collective that turns one [`Placement`] into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[doc(hidden)]
pub enum Redistribute {
    /// Shard to Replicate: stack the parts.
    AllGather,
    /// Partial to Replicate: add the parts.
    AllReduce,
    /// Partial to Shard: add what each rank keeps.
    ReduceScatter,
    /// Shard to another Shard: exchange the regions that differ.
    AllToAll,
    /// Replicate to Shard: each rank keeps a slice; nothing is sent.
    AllSlice,
    /// Replicate to Partial: rank 0 keeps its tensor, the others hold zeros; nothing is sent.
    Zero,
}

impl Redistribute {
    /// The collective from `from` to `to`, or `None` when they are the same.
    pub fn between(from: &Placement, to: &Placement) -> Option<Redistribute> {
        use Placement::*;
        match (from, to) {
            (a, b) if a == b => None,
            (Replicate, Shard { .. }) => Some(Redistribute::AllSlice),
            (Replicate, _) => Some(Redistribute::Zero),
            (Partial, Shard { .. }) => Some(Redistribute::ReduceScatter),
            (Partial, _) => Some(Redistribute::AllReduce),
            (Shard { .. }, Shard { .. }) => Some(Redistribute::AllToAll),
            (Shard { .. }, _) => Some(Redistribute::AllGather),
        }
    }
}

impl fmt::Display for Redistribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Redistribute::AllGather => "all_gather",
            Redistribute::AllReduce => "all_reduce",
            Redistribute::ReduceScatter => "reduce_scatter",
            Redistribute::AllToAll => "all_to_all",
            Redistribute::AllSlice => "all_slice",
            Redistribute::Zero => "zero",
        })
    }
}
