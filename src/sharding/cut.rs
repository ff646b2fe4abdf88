//! Where a factor is cut: one interval of integers per rank, and the arithmetic of such intervals.
//!
//! It deliberately knows neither which dimension is cut nor what the ranks are. Read `rule.rs` next for which factors
//! may be cut.

use crate::sharding::ShardingError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Where a factor is cut: one interval per rank, of any lengths; an interval may be empty.
///
/// Intervals rise with the rank and together cover the factor: 12 columns in the ratio 2 : 1 are `0..8|8..12`. They
/// may overlap only where a factor is the image of another one (KV heads under grouped query heads); an overlap
/// belongs to its lowest rank and is never summed twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<[usize; 2]>", into = "Vec<[usize; 2]>")]
pub struct Cut {
    ranges: Vec<Range<usize>>,
}

impl From<Vec<[usize; 2]>> for Cut {
    fn from(pairs: Vec<[usize; 2]>) -> Cut {
        Cut::new(pairs.into_iter().map(|[start, end]| start..end).collect())
    }
}

impl From<Cut> for Vec<[usize; 2]> {
    fn from(cut: Cut) -> Self {
        cut.ranges.into_iter().map(|r| [r.start, r.end]).collect()
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.iter().map(|r| format!("{}..{}", r.start, r.end)).collect();
        f.pad(&ranges.join("|"))
    }
}

/// The greatest common divisor.
pub fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Cut {
    /// A cut with these intervals, by rank. Whether it is legal for a factor is checked by
    /// [`super::ShardingRule::check`].
    pub fn new(ranges: Vec<Range<usize>>) -> Cut {
        Cut { ranges }
    }

    /// `pieces` units divided in proportion to `ratios`, one ratio per rank, rounded by the largest-remainder method:
    /// 10 units at 1 : 2 give 3 and 7.
    ///
    /// Ties go to the lower rank. Errors on negative or non-finite ratios, or when none is positive.
    pub fn by_ratio(pieces: usize, ratios: &[f64]) -> Result<Cut, ShardingError> {
        let sum: f64 = ratios.iter().sum();
        if ratios.iter().any(|r| !r.is_finite() || *r < 0.0) || sum <= 0.0 || !sum.is_finite() {
            return Err(ShardingError::Ratios(format!(
                "{ratios:?}: every one must be a number of at least 0 and one must be more"
            )));
        }
        let shares: Vec<f64> = ratios.iter().map(|r| pieces as f64 * r / sum).collect();
        let mut counts: Vec<usize> = shares.iter().map(|s| s.floor() as usize).collect();
        let mut order: Vec<usize> = (0..ratios.len()).filter(|&r| ratios[r] > 0.0).collect();
        order.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()).then(a.cmp(&b)));
        let missing = pieces.saturating_sub(counts.iter().sum());
        for &rank in order.iter().cycle().take(missing) {
            counts[rank] += 1;
        }
        let mut start = 0;
        Ok(Cut::new(
            counts
                .into_iter()
                .map(|n| {
                    let range = start..start + n;
                    start = range.end;
                    range
                })
                .collect(),
        ))
    }

    /// All `extent` units on the first rank, none on the others.
    #[doc(hidden)]
    pub fn undivided(extent: usize, world_size: usize) -> Cut {
        Cut::new((0..world_size).map(|rank| if rank == 0 { 0..extent } else { extent..extent }).collect())
    }

    /// Whether one rank holds all `extent` units and the others none.
    #[doc(hidden)]
    pub fn is_undivided(&self, extent: usize) -> bool {
        let mut held = self.ranges.iter().filter(|range| !range.is_empty());
        extent == 0 || (held.next() == Some(&(0..extent)) && held.next().is_none())
    }

    /// The number of ranks.
    #[doc(hidden)]
    pub fn world_size(&self) -> usize {
        self.ranges.len()
    }

    /// The intervals of these ranks alone.
    pub(crate) fn of_ranks(&self, ranks: &[usize]) -> Cut {
        Cut::new(ranks.iter().map(|&rank| self.range(rank)).collect())
    }

    /// The interval of `rank`.
    #[doc(hidden)]
    pub fn range(&self, rank: usize) -> Range<usize> {
        self.ranges[rank].clone()
    }

    /// The part of `rank`'s interval that no lower rank holds: an overlap belongs to the lowest rank.
    #[doc(hidden)]
    pub fn owned(&self, rank: usize) -> Range<usize> {
        let range = self.range(rank);
        let before = self.ranges[..rank].iter().filter(|r| !r.is_empty()).map(|r| r.end).max().unwrap_or(0);
        range.start.max(before).min(range.end)..range.end
    }

    /// The same cut in units `n` times finer: a cut of heads as a cut of their columns, with `n` the width of a head.
    #[doc(hidden)]
    pub fn scale(&self, n: usize) -> Cut {
        Cut::new(self.ranges.iter().map(|r| r.start * n..r.end * n).collect())
    }

    /// Whether every interval that is not empty begins and ends at a multiple of `granule`.
    #[doc(hidden)]
    pub fn keeps(&self, granule: usize) -> bool {
        let aligned = |r: &Range<usize>| r.start.is_multiple_of(granule) && r.end.is_multiple_of(granule);
        self.ranges.iter().all(|r| r.is_empty() || aligned(r))
    }

    /// The image of the cut under division by `group`: a cut of query heads as a cut of the KV heads that they read.
    /// Neighbouring intervals may overlap.
    #[doc(hidden)]
    pub fn image(&self, group: usize) -> Cut {
        let image =
            |r: &Range<usize>| r.start / group..if r.is_empty() { r.start / group } else { r.end.div_ceil(group) };
        Cut::new(self.ranges.iter().map(image).collect())
    }

    /// The reason why this is no legal cut of `extent` units, if there is one.
    ///
    /// `partition` forbids overlaps: elements that are summed must not be counted twice. A gap or an overlap is
    /// reported before a wrong order, since intervals in another order than the ranks may still cover everything
    /// once.
    pub(super) fn problem(&self, extent: usize, partition: bool) -> Option<String> {
        let part = |rank: usize| format!("{}..{}", self.ranges[rank].start, self.ranges[rank].end);
        for (rank, range) in self.ranges.iter().enumerate() {
            if range.start > range.end {
                return Some(format!("gives rank {rank} the part {}, which ends before it starts", part(rank)));
            }
            if range.end > extent {
                return Some(format!("leaves 0..{extent} at rank {rank}"));
            }
        }
        let held: Vec<usize> = (0..self.ranges.len()).filter(|&rank| !self.ranges[rank].is_empty()).collect();
        let mut sorted = held.clone();
        sorted.sort_by_key(|&rank| (self.ranges[rank].start, self.ranges[rank].end));
        let mut covered = 0;
        let mut furthest = None;
        for rank in sorted {
            let range = &self.ranges[rank];
            if range.start > covered {
                return Some(format!("leaves {covered}..{} to no rank", range.start));
            }
            if let Some(other) = furthest.filter(|_| partition && range.start < covered) {
                let (both, a, b) = (range.start..covered.min(range.end), rank.min(other), rank.max(other));
                let overlap = format!("{}..{}", both.start, both.end);
                return Some(format!("gives {overlap} to two ranks, {a} and {b}: what is summed must not overlap"));
            }
            if range.end > covered {
                (covered, furthest) = (range.end, Some(rank));
            }
        }
        if covered < extent {
            return Some(format!("leaves {covered}..{extent} to no rank"));
        }
        let falls = |pair: &&[usize]| {
            let (before, after) = (&self.ranges[pair[0]], &self.ranges[pair[1]]);
            after.start < before.start || after.end < before.end
        };
        held.windows(2).find(falls).map(|pair| {
            format!(
                "gives rank {} the part {} and rank {} the part {}: parts must follow one another in the order of ranks",
                pair[0],
                part(pair[0]),
                pair[1],
                part(pair[1])
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_round_by_largest_remainder() {
        let cut = Cut::by_ratio(6, &[5.0, 2.0, 1.0]).unwrap();
        assert_eq!(cut.to_string(), "0..4|4..5|5..6");
        assert_eq!(Cut::by_ratio(3, &[1.0; 5]).unwrap().to_string(), "0..1|1..2|2..3|3..3|3..3");
        assert_eq!(Cut::by_ratio(7, &[0.0, 1.0]).unwrap().to_string(), "0..0|0..7");
        assert!(Cut::by_ratio(7, &[0.0, f64::NAN]).is_err());
        assert!(Cut::by_ratio(7, &[]).is_err());
    }

    #[test]
    fn one_kv_head_serves_five_ranks() {
        let heads = Cut::by_ratio(7, &[1.0; 5]).unwrap();
        let kv = heads.image(7);
        assert_eq!(kv.to_string(), "0..1|0..1|0..1|0..1|0..1");
        assert_eq!((0..5).map(|r| kv.owned(r).len()).collect::<Vec<_>>(), [1, 0, 0, 0, 0]);
        assert_eq!(kv.problem(1, false), None);
        assert!(kv.problem(1, true).is_some());
    }

    /// What a cut must be, rank by rank: parts that rise, none left out, and none twice where they are summed.
    fn allowed(cut: &Cut, extent: usize, partition: bool) -> bool {
        let (mut start, mut covered) = (0, 0);
        for range in &cut.ranges {
            if range.start > range.end || range.end > extent {
                return false;
            }
            if range.is_empty() {
                continue;
            }
            let follows = if partition { range.start == covered } else { range.start <= covered };
            if !follows || range.start < start || range.end < covered {
                return false;
            }
            (start, covered) = (range.start, range.end);
        }
        covered == extent
    }

    /// Every cut of a short factor over three ranks: refused where it must be, and for a reason that holds.
    #[test]
    fn a_refused_cut_is_told_the_true_reason() {
        const EXTENT: usize = 4;
        let ranges: Vec<Range<usize>> = (0..=EXTENT + 1).flat_map(|a| (0..=EXTENT + 1).map(move |b| a..b)).collect();
        for a in &ranges {
            for b in &ranges {
                for c in &ranges {
                    let cut = Cut::new(vec![a.clone(), b.clone(), c.clone()]);
                    let holders = |i: usize| cut.ranges.iter().filter(|range| range.contains(&i)).count();
                    let outside = cut.ranges.iter().any(|r| r.start > r.end || r.end > EXTENT);
                    let gap = (0..EXTENT).any(|i| holders(i) == 0);
                    let twice = (0..EXTENT).any(|i| holders(i) > 1);
                    for partition in [false, true] {
                        let summed_twice = partition && twice;
                        let Some(said) = cut.problem(EXTENT, partition) else {
                            assert!(allowed(&cut, EXTENT, partition), "{cut} is taken");
                            continue;
                        };
                        assert!(!allowed(&cut, EXTENT, partition), "{cut}: {said}");
                        let holds = match said.as_str() {
                            _ if said.contains("ends before") || said.contains("leaves 0..4 at rank") => outside,
                            _ if said.contains("to no rank") => gap,
                            _ if said.contains("two ranks") => summed_twice,
                            _ => said.contains("in the order of ranks") && !(outside || gap || summed_twice),
                        };
                        assert!(holds, "{cut}: {said}");
                    }
                }
            }
        }
    }
}
