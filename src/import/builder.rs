//! What families build graphs with: weights found by name and checked by shape, and the parts that families share.
//!
//! It deliberately knows no family. A weight that is missing or misshapen is noted and building goes on, so that one
//! error lists every disagreement between the configuration and the files. Read `llama.rs` next.

use super::classifier::Classifier;
use super::joined::Joined;
use super::model::{Origin, Pooling};
use super::rope::{Angle, RopeTable};
use super::{Config, Names, Tensors, View};
use crate::error::{ImportError, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::{
    Attention, Binary, BinaryFunction, Gather, Linear, Normalization, NormalizationKind, Reduce, ReduceKind,
    RotaryEmbedding, Slice, TensorScatter, Unary, UnaryFunction,
};
use crate::tensor::{DType, Dim, Symbol, display_shape};
use std::collections::HashMap;
use std::path::Path;

/// More weights than this are a mistake in the number of layers, which would otherwise be built until memory ends.
const MAX_WEIGHTS: usize = 1 << 16;

/// What a family's builder leaves for the head.
pub(super) struct Family {
    /// The last hidden states, `[batch, seq, hidden]`.
    pub(super) hidden: ValueId,
    /// The weight that turns them into logits, if there is one.
    pub(super) logits: Option<ValueId>,
    /// The head that turns them into scores, if there is one.
    pub(super) scores: Option<Classifier>,
    /// Token ids are below this.
    pub(super) vocabulary: usize,
    /// Positions it was made for.
    pub(super) context: usize,
    /// The id of a text's first position.
    pub(super) first_position: usize,
    /// Token types are below this; 0 where it has none.
    pub(super) token_types: usize,
    /// Whether it predicts tokens.
    pub(super) generates: bool,
}

impl Family {
    /// One that predicts tokens by the weight `logits`.
    pub(super) fn decoder(hidden: ValueId, logits: ValueId, vocabulary: usize, context: usize) -> Family {
        Family { logits: Some(logits), generates: true, ..Family::encoder(hidden, vocabulary, context) }
    }

    /// One that ends in hidden states.
    pub(super) fn encoder(hidden: ValueId, vocabulary: usize, context: usize) -> Family {
        let (logits, scores, first_position, token_types, generates) = Default::default();
        Family { hidden, logits, scores, vocabulary, context, first_position, token_types, generates }
    }
}

/// The heads of one attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Heads {
    /// As many as the field says, each with its own keys and values, and `hidden` wide together.
    pub(super) fn dividing(config: &Config, field: impl Names, hidden: usize) -> Result<Heads> {
        let heads = config.usize(field.names())?;
        if !hidden.is_multiple_of(heads) {
            return Err(config.error(field, format!("{heads} does not divide hidden {hidden}")));
        }
        Ok(Heads { heads, kv_heads: heads, head_dim: hidden / heads })
    }
}

/// A graph in the making.
pub(super) struct Builder<'a> {
    pub(super) config: &'a Config,
    pub(super) graph: Graph,
    /// What each layer hands to the next, in order.
    pub(super) layers: Vec<ValueId>,
    tensors: Box<dyn Tensors>,
    origins: HashMap<String, Origin>,
    mismatches: Vec<String>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(config: &'a Config, tensors: Box<dyn Tensors>) -> Builder<'a> {
        let (graph, layers, origins, mismatches) = Default::default();
        Builder { config, graph, layers, tensors, origins, mismatches }
    }

    /// The graph, its weights' origins and the tensors these are in. Errors when any weight was missing or misshapen.
    pub(super) fn finish(self, folder: &Path) -> Result<(Graph, HashMap<String, Origin>, Box<dyn Tensors>)> {
        if self.mismatches.is_empty() {
            return Ok((self.graph, self.origins, self.tensors));
        }
        Err(ImportError::Mismatch { path: folder.to_path_buf(), mismatches: self.mismatches }.into())
    }

    /// `prefix` if the files' names bear it, judged by one tensor that every such model has; else nothing.
    pub(super) fn prefix(&self, prefix: &'static str, probe: &str) -> &'static str {
        if self.tensors.find(probe).is_some() { "" } else { prefix }
    }

    /// A weight that is all of a file tensor of `shape`.
    pub(super) fn weight(&mut self, tensor: &str, shape: &[usize]) -> Result<ValueId> {
        self.viewed(tensor, tensor, shape, shape, Ok)
    }

    /// A weight of `shape` called `name` that is a view of a file tensor of `file_shape`. A second use returns the first.
    pub(super) fn viewed(
        &mut self,
        name: &str,
        tensor: &str,
        file_shape: &[usize],
        shape: &[usize],
        view: impl FnOnce(View) -> Result<View>,
    ) -> Result<ValueId> {
        self.joined(name, &[(tensor, file_shape)], shape, |mut views| views.pop().map(view).into_iter().collect())
    }

    /// A weight of `shape` called `name` that is views of file tensors, each of a shape, one view after another along
    /// the first dimension. A second use returns the first.
    pub(super) fn joined(
        &mut self,
        name: &str,
        tensors: &[(&str, &[usize])],
        shape: &[usize],
        join: impl FnOnce(Vec<View>) -> Result<Vec<View>>,
    ) -> Result<ValueId> {
        if let Some(known) = self.graph.find(name) {
            return Ok(known);
        }
        if self.origins.len() + self.mismatches.len() >= MAX_WEIGHTS {
            let (path, reason) = (self.config.path().to_path_buf(), "calls for far more layers than any model has");
            return Err(ImportError::Folder { path, reason: reason.into() }.into());
        }
        let (mut views, mut dtype) = (Vec::new(), None);
        for &(tensor, file_shape) in tensors {
            let expected = display_shape(file_shape);
            let found = self.tensors.wanted(tensor, file_shape)?;
            match found.map(|id| self.tensors.shape(id).map(|shape| (id, shape))).transpose()? {
                None => self.mismatches.push(format!("{tensor}: missing, expected {expected}")),
                Some((_, found)) if found != file_shape => {
                    self.mismatches.push(format!("{tensor}: {}, expected {expected}", display_shape(found)));
                }
                Some((id, _)) => {
                    let found = self.tensors.dtype(id)?;
                    let first = *dtype.get_or_insert(found);
                    if first != found {
                        let other = tensors[0].0;
                        self.mismatches.push(format!("{tensor}: {found}, expected {first} as {other} is"));
                    }
                    views.push(self.tensors.view(id)?);
                }
            }
        }
        if views.len() == tensors.len() {
            let joined = Joined::new(join(views)?).filter(|joined| joined.shape() == shape);
            match joined {
                Some(joined) => drop(self.origins.insert(name.to_string(), Origin::Tensor(joined))),
                None => self.mismatches.push(format!("{name}: its parts do not make {}", display_shape(shape))),
            }
        }
        let shape: Vec<Dim> = shape.iter().map(|&n| n.into()).collect();
        self.graph.weight(name, shape, dtype.unwrap_or(DType::F32))
    }

    /// An input of `[batch, seq]` whole numbers.
    pub(super) fn ids(&mut self, name: &str) -> Result<ValueId> {
        self.graph.input(name, [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32)
    }

    /// `x` times the weight `prefix.weight` of `[out, in]`, plus `prefix.bias` if `bias`.
    pub(super) fn linear(&mut self, prefix: &str, x: ValueId, shape: [usize; 2], bias: bool) -> Result<ValueId> {
        let mut inputs = vec![x, self.weight(&format!("{prefix}.weight"), &shape)?];
        if bias {
            inputs.push(self.weight(&format!("{prefix}.bias"), &shape[..1])?);
        }
        self.graph.node(prefix, Linear, &inputs)
    }

    /// Rows of the table `prefix.weight`.
    pub(super) fn gather(&mut self, prefix: &str, ids: ValueId, shape: [usize; 2]) -> Result<ValueId> {
        let table = self.weight(&format!("{prefix}.weight"), &shape)?;
        self.graph.node(prefix, Gather, &[table, ids])
    }

    /// RMSNormalization by the weight `prefix.weight`.
    pub(super) fn rms_norm(&mut self, prefix: &str, x: ValueId, n: usize, epsilon: f64) -> Result<ValueId> {
        let weight = self.weight(&format!("{prefix}.weight"), &[n])?;
        let op = Normalization { kind: NormalizationKind::Rms, epsilon: epsilon as f32 };
        self.graph.node(prefix, op, &[x, weight])
    }

    /// LayerNormalization by `prefix.weight` and `prefix.bias`, which files made from TensorFlow's call gamma and beta.
    pub(super) fn layer_norm(&mut self, prefix: &str, x: ValueId, n: usize, epsilon: f64) -> Result<ValueId> {
        let older = self.tensors.find(&format!("{prefix}.gamma")).is_some();
        let [weight, bias] = if older { ["gamma", "beta"] } else { ["weight", "bias"] };
        let weight = self.weight(&format!("{prefix}.{weight}"), &[n])?;
        let bias = self.weight(&format!("{prefix}.{bias}"), &[n])?;
        let op = Normalization { kind: NormalizationKind::Layer, epsilon: epsilon as f32 };
        self.graph.node(prefix, op, &[x, weight, bias])
    }

    pub(super) fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.graph.node(name, Binary { function: BinaryFunction::Add }, &[a, b])
    }

    pub(super) fn mul(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.graph.node(name, Binary { function: BinaryFunction::Mul }, &[a, b])
    }

    pub(super) fn unary(&mut self, name: &str, function: UnaryFunction, x: ValueId) -> Result<ValueId> {
        self.graph.node(name, Unary { function }, &[x])
    }

    /// The activation that a configuration names.
    pub(super) fn activation(&self, field: &str, default: &str) -> Result<UnaryFunction> {
        const KNOWN: &[(&str, UnaryFunction)] = &[
            ("silu", UnaryFunction::Silu),
            ("swish", UnaryFunction::Silu),
            ("gelu", UnaryFunction::Gelu),
            ("gelu_python", UnaryFunction::Gelu),
            ("gelu_new", UnaryFunction::GeluTanh),
            ("gelu_fast", UnaryFunction::GeluTanh),
            ("gelu_pytorch_tanh", UnaryFunction::GeluTanh),
            ("relu", UnaryFunction::Relu),
            ("tanh", UnaryFunction::Tanh),
        ];
        let name = self.config.str_or(field, default)?;
        KNOWN.iter().find(|(n, _)| *n == name).map(|(_, f)| *f).ok_or_else(|| {
            let supported = KNOWN.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
            ImportError::Unsupported { what: "activation", name: name.to_string(), supported }.into()
        })
    }

    /// The tables of cosines and sines of `frequencies`, shared by all layers.
    pub(super) fn rope_tables(&mut self, frequencies: &[f64]) -> Result<[ValueId; 2]> {
        let mut table = |name: &str, angle| {
            let table = RopeTable { angle, frequencies: frequencies.to_vec() };
            self.origins.insert(name.to_string(), Origin::Rope(table));
            self.graph.weight(name, [Symbol::Capacity.into(), frequencies.len().into()], DType::F32)
        };
        Ok([table("rope.cos", Angle::Cosine)?, table("rope.sin", Angle::Sine)?])
    }

    pub(super) fn rotate(
        &mut self,
        name: &str,
        x: ValueId,
        heads: usize,
        tables: [ValueId; 2],
        positions: ValueId,
    ) -> Result<ValueId> {
        self.graph.node(name, RotaryEmbedding { heads }, &[x, tables[0], tables[1], positions])
    }

    /// Causal attention of `q` over the keys and values so far, which it keeps in the layer's state.
    pub(super) fn cached_attention(
        &mut self,
        name: &str,
        heads: Heads,
        window: Option<usize>,
        [q, k, v]: [ValueId; 3],
    ) -> Result<ValueId> {
        let mut append = |part: &str, value: ValueId| {
            let width = heads.kv_heads * heads.head_dim;
            let shape = [Symbol::Batch.into(), Symbol::Capacity.into(), width.into()];
            let state = self.graph.state(&format!("{name}.{part}_cache"), shape)?;
            self.graph.node(&format!("{name}.{part}_append"), TensorScatter { heads: heads.kv_heads }, &[state, value])
        };
        let (k, v) = (append("k", k)?, append("v", v)?);
        self.attention(name, heads, true, window, [q, k, v])
    }

    /// Attention of `q` over `k` and `v`, scaled by the root of the head's width.
    pub(super) fn attention(
        &mut self,
        name: &str,
        heads: Heads,
        causal: bool,
        window: Option<usize>,
        qkv: [ValueId; 3],
    ) -> Result<ValueId> {
        let Heads { heads, kv_heads, head_dim } = heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let op = Attention { heads, kv_heads, scale, causal, window, softcap: None };
        self.graph.node(name, op, &qkv)
    }

    /// The output `logits`: of the last `keep` positions only.
    pub(super) fn logits(&mut self, hidden: ValueId, weight: &ValueId) -> Result<()> {
        let last = Slice { axis: 1, start: None, len: Symbol::Keep.into() };
        let last = self.graph.node("last_positions", last, &[hidden])?;
        let logits = self.graph.node("lm_head", Linear, &[last, *weight])?;
        self.graph.output("logits", logits)
    }

    /// The output `hidden`, pooled.
    pub(super) fn pooled(&mut self, hidden: ValueId, pooling: Pooling) -> Result<()> {
        let pooled = match pooling {
            Pooling::None => hidden,
            Pooling::Mean => self.graph.node("pooling", Reduce { kind: ReduceKind::Mean, axis: 1 }, &[hidden])?,
            Pooling::Cls => self.first_position("pooling", hidden)?,
        };
        self.graph.output("hidden", pooled)
    }

    /// The hidden state of the first position, `[batch, hidden]`.
    pub(super) fn first_position(&mut self, name: &str, hidden: ValueId) -> Result<ValueId> {
        let first = Slice { axis: 1, start: Some(0), len: 1.into() };
        let first = self.graph.node(&format!("{name}.first"), first, &[hidden])?;
        self.graph.node(name, Reduce { kind: ReduceKind::Sum, axis: 1 }, &[first])
    }

    /// The output `scores`, the logits of the head.
    pub(super) fn scores(&mut self, hidden: ValueId, head: &Classifier) -> Result<()> {
        let logits = head.logits(self, hidden)?;
        self.graph.output("scores", logits)
    }
}
