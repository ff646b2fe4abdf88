//! The fingerprint of a graph: by it a plan knows the graph that it was made for.
//!
//! It covers the structure and deliberately not the weights' elements, nor which values are outputs: a plan for a model serves
//! it with further outputs too. Read [`crate::plan::Plan`] for who holds one.

use super::{Graph, Source};
use crate::format::Format;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Hexadecimal digits of a fingerprint: 128 bits.
const DIGITS: usize = 32;

/// What is hashed of a value.
#[derive(Serialize)]
struct Value<'a> {
    name: &'a str,
    shape: &'a crate::shape::Shape,
    dtype: Format,
    source: &'static str,
}

/// What is hashed of a node.
#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    op: &'a crate::ops::Op,
    inputs: Vec<usize>,
    output: usize,
}

impl Graph {
    /// A fingerprint of the structure: the first 128 bits of the SHA-256 of the names, shapes, types, ops, attributes and
    /// connections as JSON, in 32 hexadecimal digits.
    ///
    /// Ops of one's own enter by name and attributes.
    pub fn fingerprint(&self) -> String {
        let values = self.values.iter().map(|value| Value {
            name: &value.name,
            shape: &value.shape,
            dtype: value.format().unwrap_or(value.dtype.into()),
            source: match value.source {
                Source::Input => "input",
                Source::Weight(_) => "weight",
                Source::State => "state",
                Source::Node(_) => "node",
            },
        });
        let nodes = self.nodes.iter().map(|node| Node {
            name: &node.name,
            op: &node.op,
            inputs: node.inputs.iter().map(|input| input.0).collect(),
            output: node.output.0,
        });
        let mut hash = Sha256::new();
        // A line per item: JSON holds no line end, so that no two graphs give the same text.
        values.for_each(|value| hash.update(line(&value)));
        nodes.for_each(|node| hash.update(line(&node)));
        let mut digits = String::new();
        for byte in hash.finalize() {
            let _ = write!(digits, "{byte:02x}");
        }
        digits.truncate(DIGITS);
        digits
    }
}

/// `item` as a line of JSON.
fn line(item: &impl Serialize) -> String {
    serde_json::to_string(item).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use crate::graph::Graph;
    use crate::ops::{Linear, Unary, UnaryFunction};
    use crate::tensor::DType;

    fn graph(names: [&str; 2], width: usize, function: UnaryFunction) -> Graph {
        let mut graph = Graph::new();
        let x = graph.input("x", [2.into(), width.into()], DType::F32).unwrap();
        let w = graph.weight(names[0], [3.into(), width.into()], DType::F16).unwrap();
        let y = graph.node(names[1], Linear, &[x, w]).unwrap();
        let y = graph.node("act", Unary { function }, &[y]).unwrap();
        graph.output("y", y).unwrap();
        graph
    }

    #[test]
    fn a_fingerprint_tells_names_shapes_and_attributes_apart_and_no_outputs() {
        let one = graph(["w", "n"], 4, UnaryFunction::Silu);
        assert_eq!(one.fingerprint().len(), 32);
        assert_eq!(one.fingerprint(), graph(["w", "n"], 4, UnaryFunction::Silu).fingerprint());
        for other in [
            graph(["v", "n"], 4, UnaryFunction::Silu),
            graph(["w", "m"], 4, UnaryFunction::Silu),
            graph(["w", "n"], 5, UnaryFunction::Silu),
            graph(["w", "n"], 4, UnaryFunction::Relu),
            graph(["w", "n"], 4, UnaryFunction::Softcap(2.0)),
        ] {
            assert_ne!(one.fingerprint(), other.fingerprint());
        }
        assert_ne!(
            graph(["w", "n"], 4, UnaryFunction::Softcap(2.0)).fingerprint(),
            graph(["w", "n"], 4, UnaryFunction::Softcap(3.0)).fingerprint()
        );
        let mut more = graph(["w", "n"], 4, UnaryFunction::Silu);
        let n = more.find("n").unwrap();
        more.output("product", n).unwrap();
        assert_eq!(one.fingerprint(), more.fingerprint());
    }
}
