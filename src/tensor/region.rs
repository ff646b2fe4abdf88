//! [`Region`], a part of a tensor with one range per dimension, and [`copy_region`], which copies one region onto
//! another.
//!
//! Weight shards, the parts of a tensor that ranks exchange, and the parts of an output are all regions. One routine
//! therefore does all slicing, stacking and interleaving.
//! This module deliberately knows nothing of ranks. Read [`crate::sharding`] next, which decides on the regions.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A part of a tensor: one range of indices per dimension. `[0..2, 3..5]` are the columns 3 and 4 of the first two
/// rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Region(pub Vec<Range<usize>>);

impl Region {
    /// The region that is a whole tensor of `shape`.
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

    /// The elements of the region as one range of the elements of a row-major tensor of `shape`, or `None` when others lie
    /// between them.
    #[doc(hidden)]
    pub fn contiguous(&self, shape: &[usize]) -> Option<Range<usize>> {
        let (mut start, mut stride, mut part) = (0, 1, false);
        for (range, &n) in self.0.iter().zip(shape).rev() {
            // Of the dimensions before the last one that is covered in part, one index is left.
            if part && range.len() != 1 {
                return None;
            }
            part |= range.len() != n;
            start += range.start * stride;
            stride *= n;
        }
        Some(start..start + self.numel())
    }
}

/// Copies the region `from` of `source`, a tensor of the shape `source_shape`, onto the region `to` of `target`, a
/// tensor of the shape `target_shape`. Both are row-major bytes with `size` bytes per element.
///
/// The regions must have the same lengths in all dimensions and be inside their tensors. If `source` is a whole shard
/// and `to` a part of the target, this stacks shards; if `from` is a part and `to` the whole target, this slices.
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
    // Finds the longest contiguous run of bytes in both regions. It has all trailing dimensions that both regions cover
    // completely, and the dimension before them. The dimensions `..split` are left to be iterated over.
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

/// A region of a tensor of which only some dimensions are known as numbers: pairs of a dimension and its range. The
/// region covers the other dimensions, which may be symbolic, completely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SymbolicRegion(pub Vec<(usize, Range<usize>)>);

impl SymbolicRegion {
    /// The region as one range per dimension, for a tensor whose shape is resolved to `shape`.
    #[doc(hidden)]
    pub fn resolve(&self, shape: &[usize]) -> Region {
        let mut region = Region::whole(shape);
        for (dim, range) in &self.0 {
            region.0[*dim] = range.clone();
        }
        region
    }

    /// Whether one of the ranges is empty, so that the region is empty whatever the values of the symbols.
    #[doc(hidden)]
    pub fn is_empty(&self) -> bool {
        self.0.iter().any(|(_, range)| range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contiguous_region_is_one_run_of_elements() {
        let shape = [2, 3, 4];
        let ranges = |n: usize| -> Vec<Range<usize>> { (0..=n).flat_map(|a| (a..=n).map(move |b| a..b)).collect() };
        let all = ranges(2).into_iter().flat_map(|a| {
            let pairs = ranges(3).into_iter().flat_map(|b| ranges(4).into_iter().map(move |c| (b.clone(), c)));
            pairs.map(move |(b, c)| (a.clone(), b, c))
        });
        for (a, b, c) in all {
            let region = Region(vec![a.clone(), b.clone(), c.clone()]);
            let elements = a.flat_map(|i| {
                let c = c.clone();
                b.clone().flat_map(move |j| c.clone().map(move |k| (i * 3 + j) * 4 + k))
            });
            let elements: Vec<usize> = elements.collect();
            let gapless = elements.windows(2).all(|pair| pair[1] == pair[0] + 1);
            let found = region.contiguous(&shape);
            match &found {
                Some(range) => assert_eq!(range.clone().collect::<Vec<_>>(), elements, "{region:?}"),
                None => assert!(!gapless || elements.is_empty(), "{region:?}"),
            }
        }
    }
}
