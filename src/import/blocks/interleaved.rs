//! Fused query-key-value weights that are interleaved by KV head: for each KV head the queries of its group, its key
//! and its value.
//!
//! Views separate them here: sharding rules and plans see three weights, and a rank reads only the rows of its own
//! heads. Read `files/joined.rs` for views of rows that are not contiguous.

use crate::graph::ValueId;
use crate::import::ImportError;
use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::{BuildProjection, Projection};
use crate::import::files::tensors::View;
use crate::ops::Linear;
use std::ops::Range;

/// The row ranges of the projection `part` in an interleaved weight, one per KV head.
fn rows(part: Projection, heads: Heads) -> Vec<Range<usize>> {
    let group = heads.heads / heads.kv_heads;
    let (before, count) = match part {
        Projection::Query => (0, group),
        Projection::Key => (group, 1),
        Projection::Value => (group + 1, 1),
    };
    let start = |kv_head: usize| (kv_head * (group + 2) + before) * heads.head_dim;
    (0..heads.kv_heads).map(|head| start(head)..start(head) + count * heads.head_dim).collect()
}

/// The projections of a block whose fused weight is `ATTENTION.query_key_value` (GPT-NeoX, Falcon).
pub(crate) fn projections(attention: &'static str, hidden: usize, heads: Heads, bias: bool) -> BuildProjection {
    let all = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
    Box::new(move |b, block, part, x| {
        let fused = block.name(&format!("{attention}.query_key_value"));
        let name = block.name(&format!("{attention}.{part}_proj"));
        let mut inputs = vec![x, rows_of(b, [&name, &fused, "weight"], (part, heads), &[all, hidden])?];
        if bias {
            inputs.push(rows_of(b, [&name, &fused, "bias"], (part, heads), &[all])?);
        }
        Ok(b.graph.node(&name, Linear, &inputs)?)
    })
}

/// The rows of one projection as a weight of its own.
fn rows_of(
    b: &mut Builder<'_>,
    [name, fused, kind]: [&str; 3],
    (part, heads): (Projection, Heads),
    file_shape: &[usize],
) -> Result<ValueId, ImportError> {
    let mut shape = file_shape.to_vec();
    shape[0] = part.heads(heads) * heads.head_dim;
    let (name, fused) = (format!("{name}.{kind}"), format!("{fused}.{kind}"));
    b.joined(&name, &[(&fused, file_shape)], &shape, |views| {
        let parts = |view: &View| rows(part, heads).into_iter().map(|rows| view.slice(0, rows)).collect();
        views.first().map_or(Ok(Vec::new()), parts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_belongs_to_one_part_in_the_order_of_the_file() {
        let heads = Heads { heads: 6, kv_heads: 2, head_dim: 4 };
        assert_eq!(rows(Projection::Query, heads), [0..12, 20..32]);
        assert_eq!(rows(Projection::Key, heads), [12..16, 32..36]);
        assert_eq!(rows(Projection::Value, heads), [16..20, 36..40]);
        let interleaved = Heads { heads: 3, kv_heads: 3, head_dim: 2 };
        assert_eq!(rows(Projection::Key, interleaved), [2..4, 8..10, 14..16]);
    }
}
