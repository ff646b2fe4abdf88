//! Regions of a tensor: one range per dimension, symbolic or resolved; and the routine that copies one region onto
//! another.
//!
//! Weight shards, exchanges and the parts of an output are all regions, so that one routine slices, stacks and interleaves.
//! This module deliberately knows nothing of ranks. Read [`crate::sharding`] next for who decides on regions.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A part of a tensor: one range per dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Region(pub Vec<Range<usize>>);

impl Region {
    /// The region that covers all of `shape`.
    pub fn whole(shape: &[usize]) -> Region {
        Region(shape.iter().map(|&n| 0..n).collect())
    }

    /// The length of the region in each dimension.
    #[doc(hidden)]
    pub fn shape(&self) -> Vec<usize> {
        self.0.iter().map(|r| r.len()).collect()
    }

    /// The number of elements in the region.
    #[doc(hidden)]
    pub fn numel(&self) -> usize {
        self.0.iter().map(|r| r.len()).product()
    }
}

/// Copies the region `from` of `source`, which has the shape `source_shape`, onto the region `to` of `target`.
///
/// Both regions have the same lengths and are inside their shapes; `size` is the bytes of one element. Exchanges and
/// weight shards share this routine: it slices, stacks and interleaves.
#[doc(hidden)]
pub fn copy_region(
    size: usize,
    (source, source_shape, from): (&[u8], &[usize], &Region),
    (target, target_shape, to): (&mut [u8], &[usize], &Region),
) {
    debug_assert_eq!(from.shape(), to.shape());
    if from.numel() == 0 {
        return;
    }
    let rank = from.0.len();
    // Trailing dimensions that both regions cover completely are contiguous: they are merged into one run.
    let mut split = rank;
    let mut run = size;
    while split > 0 {
        split -= 1;
        run *= from.0[split].len();
        if from.0[split].len() != source_shape[split] || to.0[split].len() != target_shape[split] {
            break;
        }
    }
    let strides = |shape: &[usize]| -> Vec<usize> {
        let mut strides = vec![size; rank];
        for d in (0..rank.saturating_sub(1)).rev() {
            strides[d] = strides[d + 1] * shape[d + 1];
        }
        strides
    };
    let (source_strides, target_strides) = (strides(source_shape), strides(target_shape));
    let start =
        |region: &Region, strides: &[usize]| -> usize { region.0.iter().zip(strides).map(|(r, s)| r.start * s).sum() };
    let (source_start, target_start) = (start(from, &source_strides), start(to, &target_strides));
    let mut index = vec![0usize; split];
    loop {
        let at = |strides: &[usize]| -> usize { index.iter().zip(strides).map(|(i, s)| i * s).sum() };
        let (s, t) = (source_start + at(&source_strides), target_start + at(&target_strides));
        target[t..t + run].copy_from_slice(&source[s..s + run]);
        let mut d = split;
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < from.0[d].len() {
                break;
            }
            index[d] = 0;
        }
    }
}

/// A region of a tensor whose dimensions may be symbolic: ranges in some dimensions, everything in the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SymbolicRegion(pub Vec<(usize, Range<usize>)>);

impl SymbolicRegion {
    /// The region in a tensor of `shape`.
    #[doc(hidden)]
    pub fn resolve(&self, shape: &[usize]) -> Region {
        let mut region = Region::whole(shape);
        for (dim, range) in &self.0 {
            region.0[*dim] = range.clone();
        }
        region
    }

    /// Whether the region is empty, whatever the symbols' values.
    #[doc(hidden)]
    pub fn is_empty(&self) -> bool {
        self.0.iter().any(|(_, range)| range.is_empty())
    }
}
