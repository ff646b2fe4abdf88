//! The matrices of a graph: the weights that may be stored in another format than their source's.
//!
//! It deliberately encodes nothing: [`crate::weights`] does as ranks load. Read `mod.rs` for the graph.

use super::{Graph, Source, Value, ValueId, fits};
use crate::format::Format;
use crate::ops::Operand;
use crate::tensor::DType;
use std::collections::HashSet;

impl Graph {
    /// The elements of a block of each of `values`, 1 where a value has none: for [`ShardingRule::set_blocks`].
    ///
    /// [`ShardingRule::set_blocks`]: crate::sharding::ShardingRule::set_blocks
    pub(super) fn blocks(&self, values: &[ValueId]) -> Vec<usize> {
        values.iter().map(|&value| self.value(value).format().map_or(1, Format::block)).collect()
    }

    /// The weights of two dimensions or more that some node reads as the rows of a matrix, in the order of the graph.
    #[doc(hidden)]
    pub fn matrices(&self) -> impl Iterator<Item = &Value> {
        let read = |node: &super::Node| {
            let operands = node.inputs.iter().enumerate();
            operands.filter(|(i, _)| node.op.operand(*i) == Operand::Matrix).map(|(_, &v)| v).collect::<Vec<_>>()
        };
        let read: HashSet<ValueId> = self.nodes.iter().flat_map(read).collect();
        let matrix = move |(id, value): &(ValueId, &Value)| {
            read.contains(id) && value.format().is_some() && value.shape.len() > 1 && value.dtype == DType::F32
        };
        self.values().filter(matrix).map(|(_, value)| value)
    }

    /// The same graph with its matrices stored in `format`. One whose rows are not whole blocks keeps its format.
    ///
    /// A format with blocks allows fewer cuts, and is part of the fingerprint.
    pub fn with_matrices(mut self, format: Format) -> Graph {
        let names: HashSet<String> =
            self.matrices().filter(|value| fits(&value.shape, format)).map(|value| value.name.clone()).collect();
        for value in self.values.iter_mut().filter(|value| names.contains(&value.name)) {
            value.source = Source::Weight(format);
        }
        for n in 0..self.nodes.len() {
            let blocks = self.blocks(&self.nodes[n].inputs);
            self.nodes[n].rule.set_blocks(&blocks);
        }
        self
    }
}
