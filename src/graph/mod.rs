//! A model as a graph of ops on named values, and where its weights come from.
//!
//! It deliberately knows no file format, no plan and no device. A graph can only be built whole and right: every node is
//! bound to its sharding rule as it is added, which also infers its shape. Read [`crate::import`] next for who builds
//! graphs, and [`crate::plan`] for what is decided about them.

mod error;
mod fingerprint;
mod matrices;

pub use error::GraphError;

use crate::format::Format;
use crate::ops::{Op, OpError, Operand};
use crate::shape::{Dim, Shape, Symbol, display_shape};
use crate::sharding::ShardingRule;
use crate::tensor::DType;
use std::collections::HashMap;

/// The number of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub usize);

/// The number of a node in its graph. Nodes are numbered in an order in which they can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given with every call.
    Input,
    /// Read once, when a session opens, from [`Weights`](crate::weights::Weights), and stored in this format.
    Weight(Format),
    /// A state, such as a KV cache: zero at first, kept between calls, written in place.
    State,
    /// Computed by this node.
    Node(NodeId),
}

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its name, unique in the graph.
    pub name: String,
    /// Its whole shape.
    pub shape: Shape,
    /// The type of its elements as ops see them: f32, or u32 for indices.
    pub dtype: DType,
    /// Where it comes from.
    pub source: Source,
}

/// An op applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, unique in the graph; its output bears the same.
    pub name: String,
    /// The op.
    pub op: Op,
    /// The values that it reads, in the op's order.
    pub inputs: Vec<ValueId>,
    /// The value that it computes.
    pub output: ValueId,
    /// Its sharding rule, bound to its inputs' shapes.
    pub rule: ShardingRule,
}

/// A model's computation.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
    nodes: Vec<Node>,
    outputs: Vec<(String, ValueId)>,
    names: HashMap<String, ValueId>,
    /// States that a node has overwritten in place, and which node.
    overwritten: HashMap<ValueId, String>,
}

impl Value {
    /// The format that it is stored in; `None` if it is no weight.
    pub fn format(&self) -> Option<Format> {
        match self.source {
            Source::Weight(format) => Some(format),
            Source::Input | Source::State | Source::Node(_) => None,
        }
    }
}

/// Whether rows of this shape are whole blocks of `format`.
fn fits(shape: &Shape, format: Format) -> bool {
    match shape.last().copied().unwrap_or(Dim::Fixed(1)) {
        Dim::Fixed(row) => format.holds(&[row]),
        Dim::Symbol(_) => format.block() == 1,
    }
}

/// The error for a value that cannot be used as asked.
fn refused(name: &str, reason: String) -> GraphError {
    GraphError::Value { value: name.to_string(), reason }
}

/// Why an op whose attributes cannot be written as JSON is not accepted.
fn unwritable(op: &Op, error: &impl std::fmt::Display) -> GraphError {
    OpError::Attribute { op: op.name(), reason: format!("its attributes cannot be written as JSON: {error}") }.into()
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    fn add(&mut self, name: &str, shape: Shape, dtype: DType, source: Source) -> Result<ValueId, GraphError> {
        // A shape whose bytes no machine can count is refused here, so that no later code has to check for overflow.
        let fixed = shape.iter().filter_map(|d| d.fixed()).try_fold(16usize, |n, d| n.checked_mul(d.max(1)));
        if fixed.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(refused(name, format!("of shape {} is larger than any machine", display_shape(&shape))));
        }
        let id = ValueId(self.values.len());
        if self.names.contains_key(name) {
            let problem = "is defined twice";
            return Err(GraphError::Name { kind: "value", name: name.to_string(), problem });
        }
        self.names.insert(name.to_string(), id);
        self.values.push(Value { name: name.to_string(), shape, dtype, source });
        Ok(id)
    }

    /// Adds a value given with every call, in f32 or u32. Errors when the name is taken or the type is another.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<ValueId, GraphError> {
        if Format::from(dtype).dtype() != dtype {
            return Err(refused(name, format!("is given with every call in {dtype}: only weights may be; use f32")));
        }
        self.add(name, shape.into(), dtype, Source::Input)
    }

    /// Adds a weight that is stored in `format`: a [`DType`], or a [`Format`] with blocks.
    ///
    /// Errors when the name is taken, or when rows of this shape are not whole blocks.
    pub fn weight(
        &mut self,
        name: &str,
        shape: impl Into<Shape>,
        format: impl Into<Format>,
    ) -> Result<ValueId, GraphError> {
        let (shape, format) = (shape.into(), format.into());
        if !fits(&shape, format) {
            let (shape, block) = (display_shape(&shape), format.block());
            return Err(refused(
                name,
                format!("has rows of {shape}, which are not whole blocks of {block} in {format}"),
            ));
        }
        self.add(name, shape, format.dtype(), Source::Weight(format))
    }

    /// Adds a state in f32. Its first dimension may be `batch`, any may be `capacity`.
    ///
    /// Errors when the name is taken, or when a length changes from call to call so that elements would have to move.
    pub fn state(&mut self, name: &str, shape: impl Into<Shape>) -> Result<ValueId, GraphError> {
        let shape = shape.into();
        let kept = |(i, dim): (usize, &Dim)| match dim {
            Dim::Fixed(_) | Dim::Symbol(Symbol::Capacity) => true,
            Dim::Symbol(Symbol::Batch) => i == 0,
            Dim::Symbol(_) => false,
        };
        if !shape.iter().enumerate().all(kept) {
            let shape = display_shape(&shape);
            let reason = format!(
                "is a state of shape {shape}, which is kept between calls: its lengths may be numbers and `capacity`, \
                 the first one `batch`"
            );
            return Err(refused(name, reason));
        }
        self.add(name, shape, DType::F32, Source::State)
    }

    /// Adds a node and returns its output.
    ///
    /// Errors when the name is taken, an id is of another graph, the op's attributes cannot be written as JSON, the inputs do
    /// not fit its rule or are of types that it does not read, or when it reads what a node before it has overwritten in
    /// place.
    pub fn node(&mut self, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let op = op.into();
        let wrap = |cause: GraphError| GraphError::Node { node: name.to_string(), cause: Box::new(cause) };
        inputs.iter().try_for_each(|&value| self.check_known(value)).map_err(wrap)?;
        let shapes: Vec<Shape> = inputs.iter().map(|&v| self.value(v).shape.clone()).collect();
        op.attributes().map_err(|error| wrap(unwritable(&op, &error)))?;
        let mut rule = op.rule(&shapes).map_err(|cause| wrap(cause.into()))?;
        rule.set_blocks(&self.blocks(inputs));
        for (input, &value) in inputs.iter().enumerate() {
            self.check_current(value).map_err(wrap)?;
            let found = self.value(value).dtype;
            op.operand(input)
                .check(found)
                .map_err(|expected| wrap(GraphError::Operand { op: op.name(), input, expected, found }))?;
        }
        let overwritten = op.in_place().and_then(|i| self.overwritten_by(i, inputs).transpose()).transpose();
        let overwritten = overwritten.map_err(wrap)?;
        // An op that copies its input unchanged keeps its element type.
        let dtype = match inputs.first() {
            Some(&value) if op.operand(0) == Operand::Either => self.value(value).dtype,
            _ => DType::F32,
        };
        let id = NodeId(self.nodes.len());
        let output = self.add(name, rule.output_shape(), dtype, Source::Node(id))?;
        self.overwritten.extend(overwritten.map(|state| (state, name.to_string())));
        self.nodes.push(Node { name: name.to_string(), op, inputs: inputs.to_vec(), output, rule });
        Ok(output)
    }

    /// The state that a node overwrites in place by its input number `i`; `None` where it writes into a copy.
    fn overwritten_by(&self, i: usize, inputs: &[ValueId]) -> Result<Option<ValueId>, GraphError> {
        let target = inputs[i];
        let Some(state) = self.state_of(self.origin(target)) else { return Ok(None) };
        let name = &self.value(state).name;
        if self.origin(target) != target {
            let reason = "is a state and is overwritten under another shape: write to it first, then reshape".into();
            return Err(refused(name, reason));
        }
        let reads = |(j, &value): (usize, &ValueId)| j != i && self.state_of(self.origin(value)) == Some(state);
        if inputs.iter().enumerate().any(reads) {
            return Err(refused(name, "is a state that one node both reads and overwrites".into()));
        }
        if self.outputs.iter().any(|(_, output)| self.origin(*output) == target) {
            let reason = "is an output, and overwritten before outputs are read: return what overwrites it".into();
            return Err(refused(&self.value(target).name, reason));
        }
        Ok(Some(target))
    }

    /// Errors when an earlier node has overwritten `value`, or the value that it is a view of.
    fn check_current(&self, value: ValueId) -> Result<(), GraphError> {
        let origin = self.origin(value);
        match self.overwritten.get(&origin) {
            Some(node) => Err(refused(&self.value(value).name, format!("was overwritten by node {node}: read that"))),
            None => Ok(()),
        }
    }

    fn check_known(&self, value: ValueId) -> Result<(), GraphError> {
        if value.0 < self.values.len() {
            return Ok(());
        }
        Err(GraphError::Name { kind: "value", name: format!("number {}", value.0), problem: "is of another graph" })
    }

    /// The value whose memory `value` shares: the input of a reshape, for example, or `value` itself.
    fn origin(&self, value: ValueId) -> ValueId {
        match self.value(value).source {
            Source::Node(node) if self.nodes[node.0].op.is_view() => self.origin(self.nodes[node.0].inputs[0]),
            _ => value,
        }
    }

    /// Makes a value an output, under a name.
    ///
    /// Errors when the name is taken by another output, the id is of another graph, or a node has overwritten the value.
    pub fn output(&mut self, name: &str, value: ValueId) -> Result<(), GraphError> {
        self.check_known(value)?;
        self.check_current(value)?;
        if self.outputs.iter().any(|(n, _)| n == name) {
            let problem = "is defined twice";
            return Err(GraphError::Name { kind: "output", name: name.to_string(), problem });
        }
        self.outputs.push((name.to_string(), value));
        Ok(())
    }

    /// The value `id`, which must be of this graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// All values with their ids.
    #[doc(hidden)]
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, v)| (ValueId(i), v))
    }

    /// The value called `name`.
    #[doc(hidden)]
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// The nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The outputs with their names.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// The state that `value` stands for: the state as declared, or as a node has written it.
    #[doc(hidden)]
    pub fn state_of(&self, value: ValueId) -> Option<ValueId> {
        match self.value(value).source {
            Source::State => Some(value),
            Source::Node(node) => {
                let node = &self.nodes[node.0];
                node.op.in_place().and_then(|i| self.state_of(node.inputs[i]))
            }
            _ => None,
        }
    }
}
