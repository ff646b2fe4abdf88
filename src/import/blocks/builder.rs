//! [`Builder`], with which families build graphs: it finds weights by name, checks their shapes, and adds common nodes.
//!
//! It deliberately knows no family. A weight that is missing or has the wrong shape is noted and building goes on, so
//! that one error lists every disagreement between the configuration and the files. Read `decoder.rs` next.

use crate::graph::{Graph, ValueId};
use crate::import::ImportError;
use crate::import::blocks::norm::Norm;
use crate::import::blocks::origin::Origin;
use crate::import::blocks::rope::{Angle, Rope, RopeTable};
use crate::import::files::config::{Config, FieldNames};
use crate::import::files::joined::Joined;
use crate::import::files::tensors::{Tensors, View};
use crate::model::Pooling;
use crate::ops::{
    Attention, Binary, BinaryFunction, Gather, Linear, Normalization, NormalizationKind, Reduce, ReduceKind,
    RotaryEmbedding, Slice, TensorScatter, Unary, UnaryFunction,
};
use crate::shape::{Dim, Symbol, display_shape};
use crate::tensor::DType;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// How hidden states become logits. The weight is added to the graph only when logits are asked for: a folder that is
/// used for embeddings alone may lack it.
pub(crate) struct Logits {
    /// The name of the head's weight in the file, whose shape is `shape`.
    pub(crate) tensor: String,
    pub(crate) shape: [usize; 2],
    pub(crate) softcap: Option<f32>,
}

/// The names of the tensors that hold a decoder's embedding table and its head. Both are the same name when the two
/// share one tensor.
pub(crate) struct Vocabulary {
    pub(crate) embedding: String,
    pub(crate) head: String,
}

/// How many heads attention has, and how wide each is.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Heads {
    /// Multi-head attention: as many heads as `field` of the configuration says, each with keys and values of its
    /// own, together `hidden` wide. Errors when `hidden` is not a multiple of the number of heads.
    pub(crate) fn dividing(config: &Config, field: impl FieldNames, hidden: usize) -> Result<Heads, ImportError> {
        let heads = config.usize(field.names())?;
        if !hidden.is_multiple_of(heads) {
            return Err(config.error(field, format!("{heads} does not divide hidden {hidden}")));
        }
        config.agrees("head_dim", hidden / heads);
        Ok(Heads { heads, kv_heads: heads, head_dim: hidden / heads })
    }

    /// Grouped-query attention as a configuration states it. Errors when query heads are not a multiple of KV heads.
    pub(crate) fn read(config: &Config, hidden: usize) -> Result<Heads, ImportError> {
        let heads = config.usize("num_attention_heads")?;
        let kv_heads = config.opt_usize("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.error("num_key_value_heads", format!("{kv_heads} does not divide {heads} query heads")));
        }
        let head_dim = match config.opt_usize("head_dim")? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let reason = format!("{heads} does not divide hidden {hidden}");
                return Err(config.error("num_attention_heads", reason));
            }
        };
        Ok(Heads { heads, kv_heads, head_dim })
    }

    /// The width of all query heads together.
    pub(crate) fn width(self) -> usize {
        self.heads * self.head_dim
    }
}

/// How scores are computed from queries and keys.
#[derive(Clone, Copy)]
pub(crate) struct AttentionConfig {
    pub(crate) heads: Heads,
    /// The factor by which the product of a query and a key is multiplied.
    pub(crate) scale: f32,
    /// Sliding window: a query attends to this many positions, its own included. `None`: to all before it.
    pub(crate) window: Option<usize>,
    /// Soft cap of scores: `c * tanh(score / c)`.
    pub(crate) softcap: Option<f32>,
}

impl AttentionConfig {
    /// Scores divided by the root of the head's width, without window or cap.
    pub(crate) fn plain(heads: Heads) -> AttentionConfig {
        AttentionConfig { heads, scale: 1.0 / (heads.head_dim as f32).sqrt(), window: None, softcap: None }
    }
}

/// A finished graph, where its weights come from, and the tensors of the files.
type Built = (Graph, HashMap<String, Origin>, Box<dyn Tensors>);

/// A graph in the making, and the tensors that its weights are looked up in.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a Config,
    pub(crate) graph: Graph,
    /// The output of each layer, in order.
    pub(crate) layers: Vec<ValueId>,
    tensors: Box<dyn Tensors>,
    origins: HashMap<String, Origin>,
    mismatches: Vec<String>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(config: &'a Config, tensors: Box<dyn Tensors>) -> Builder<'a> {
        let (graph, layers, origins, mismatches) = Default::default();
        Builder { config, graph, layers, tensors, origins, mismatches }
    }

    /// The finished graph. Errors with every weight that was missing or had another shape than the configuration
    /// calls for.
    pub(crate) fn finish(self, folder: &Path) -> Result<Built, ImportError> {
        if self.mismatches.is_empty() {
            return Ok((self.graph, self.origins, self.tensors));
        }
        Err(ImportError::Mismatch { path: folder.to_path_buf(), mismatches: self.mismatches })
    }

    /// The prefix of tensor names in these files: the first of `prefixes`, or else the empty one, with which the tensor
    /// `probe` exists. For example `model.`, or nothing for a base model, which is saved without the prefix. When
    /// `probe` exists with none of them, returns the first of `prefixes`, so that the error names tensors as most files
    /// do.
    pub(crate) fn prefix(&self, prefixes: &[&'static str], probe: &str) -> &'static str {
        let there = |prefix: &&&str| self.tensors.find(&format!("{prefix}{probe}")).is_some();
        prefixes.iter().chain(&[""]).find(there).or(prefixes.first()).copied().unwrap_or_default()
    }

    /// Whether the files lack the tensor `name`. Always false for a model with random weights.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.tensors.lacks(name)
    }

    /// The length of the last dimension of `value`.
    pub(crate) fn width(&self, value: ValueId) -> usize {
        self.graph.value(value).shape.last().and_then(|width| width.fixed()).unwrap_or(0)
    }

    /// The tensors that hold the embedding table and the head.
    ///
    /// The setting `tied` is checked against the files, as transformers does: when both tensors exist and differ, each
    /// keeps its own use; when only one exists, it is used as both.
    pub(crate) fn vocabulary(&self, tied: bool, embedding: &str, head: &str) -> Result<Vocabulary, ImportError> {
        let both = |name: &str| Vocabulary { embedding: name.to_string(), head: name.to_string() };
        match (self.tensors.find(embedding), self.tensors.find(head)) {
            _ if !tied => Ok(Vocabulary { embedding: embedding.to_string(), head: head.to_string() }),
            (Some(a), Some(b)) if !self.tensors.same(a, b)? => self.vocabulary(false, embedding, head),
            (None, Some(_)) => Ok(both(head)),
            _ => Ok(both(embedding)),
        }
    }

    /// A weight that is the whole file tensor `tensor` of `shape`.
    pub(crate) fn weight(&mut self, tensor: &str, shape: &[usize]) -> Result<ValueId, ImportError> {
        self.viewed(tensor, tensor, shape, shape, Ok)
    }

    /// A weight `name` of `shape` that is a view of a file tensor of `file_shape`, for example a slice of a fused
    /// projection. A second call with the same name returns the first weight.
    pub(crate) fn viewed(
        &mut self,
        name: &str,
        tensor: &str,
        file_shape: &[usize],
        shape: &[usize],
        view: impl FnOnce(View) -> Result<View, ImportError>,
    ) -> Result<ValueId, ImportError> {
        self.joined(name, &[(tensor, file_shape)], shape, |mut views| views.pop().map(view).into_iter().collect())
    }

    /// A weight `name` of `shape` made of several file tensors, stacked along the first dimension, for example one
    /// tensor per expert. A second call with the same name returns the first weight.
    pub(crate) fn joined(
        &mut self,
        name: &str,
        tensors: &[(&str, &[usize])],
        shape: &[usize],
        join: impl FnOnce(Vec<View>) -> Result<Vec<View>, ImportError>,
    ) -> Result<ValueId, ImportError> {
        if let Some(known) = self.graph.find(name) {
            return Ok(known);
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
        Ok(self.graph.weight(name, shape, dtype.unwrap_or(DType::F32))?)
    }

    /// An input `[batch, seq]` of u32, such as token ids.
    pub(crate) fn ids(&mut self, name: &str) -> Result<ValueId, ImportError> {
        Ok(self.graph.input(name, [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32)?)
    }

    /// A linear layer: `x` times the weight `prefix.weight` of shape `[out, in]`, plus `prefix.bias` if `bias`.
    pub(crate) fn linear(
        &mut self,
        prefix: &str,
        x: ValueId,
        shape: [usize; 2],
        bias: bool,
    ) -> Result<ValueId, ImportError> {
        let mut inputs = vec![x, self.weight(&format!("{prefix}.weight"), &shape)?];
        if bias {
            inputs.push(self.weight(&format!("{prefix}.bias"), &shape[..1])?);
        }
        Ok(self.graph.node(prefix, Linear, &inputs)?)
    }

    /// An embedding: the rows `ids` of the table `prefix.weight`.
    pub(crate) fn gather(&mut self, prefix: &str, ids: ValueId, shape: [usize; 2]) -> Result<ValueId, ImportError> {
        self.gather_of(prefix, &format!("{prefix}.weight"), ids, shape)
    }

    /// As [`Builder::gather`], from the table in the tensor `tensor`.
    pub(crate) fn gather_of(
        &mut self,
        name: &str,
        tensor: &str,
        ids: ValueId,
        shape: [usize; 2],
    ) -> Result<ValueId, ImportError> {
        let table = self.weight(tensor, &shape)?;
        Ok(self.graph.node(name, Gather, &[table, ids])?)
    }

    /// One of several linear layers that a file stores fused: the layer `name`, whose weight is the rows `rows` of
    /// `fused.weight`, a tensor of shape `[all, in]`.
    pub(crate) fn linear_rows(
        &mut self,
        name: &str,
        (fused, [all, width]): (&str, [usize; 2]),
        rows: Range<usize>,
        x: ValueId,
    ) -> Result<ValueId, ImportError> {
        let shape = [rows.len(), width];
        let part = format!("{name}.weight");
        let weight =
            self.viewed(&part, &format!("{fused}.weight"), &[all, width], &shape, |view| view.slice(0, rows))?;
        Ok(self.graph.node(name, Linear, &[x, weight])?)
    }

    /// A normalisation over the last `n` elements with the weight `prefix.weight`, and the bias `prefix.bias` for
    /// LayerNormalization. Files converted from TensorFlow call them `gamma` and `beta`.
    pub(crate) fn norm(&mut self, prefix: &str, x: ValueId, n: usize, norm: Norm) -> Result<ValueId, ImportError> {
        let older = self.tensors.find(&format!("{prefix}.gamma")).is_some();
        let [weight, bias] = if older { ["gamma", "beta"] } else { ["weight", "bias"] };
        let mut inputs = vec![x, self.weight(&format!("{prefix}.{weight}"), &[n])?];
        if norm.kind == NormalizationKind::Layer {
            inputs.push(self.weight(&format!("{prefix}.{bias}"), &[n])?);
        }
        let op = Normalization { kind: norm.kind, epsilon: norm.epsilon as f32, offset: norm.offset };
        Ok(self.graph.node(prefix, op, &inputs)?)
    }

    /// LayerNormalization with `prefix.weight` and `prefix.bias`.
    pub(crate) fn layer_norm(
        &mut self,
        prefix: &str,
        x: ValueId,
        n: usize,
        epsilon: f64,
    ) -> Result<ValueId, ImportError> {
        self.norm(prefix, x, n, Norm { kind: NormalizationKind::Layer, epsilon, offset: 0.0 })
    }

    pub(crate) fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, ImportError> {
        Ok(self.graph.node(name, Binary { function: BinaryFunction::Add }, &[a, b])?)
    }

    pub(crate) fn mul(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, ImportError> {
        Ok(self.graph.node(name, Binary { function: BinaryFunction::Mul }, &[a, b])?)
    }

    pub(crate) fn unary(&mut self, name: &str, function: UnaryFunction, x: ValueId) -> Result<ValueId, ImportError> {
        Ok(self.graph.node(name, Unary { function }, &[x])?)
    }

    /// The activation function that `field` of the configuration names. Errors on a name that is not supported.
    pub(crate) fn activation(&self, config: &Config, field: impl FieldNames) -> Result<UnaryFunction, ImportError> {
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
        let name = config.str(field)?;
        KNOWN.iter().find(|(n, _)| *n == name).map(|(_, f)| *f).ok_or_else(|| {
            let supported = KNOWN.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
            ImportError::Unsupported { what: "activation", name: name.to_string(), supported }
        })
    }

    /// The table of cosines or sines of `rope`, a weight that all layers with the same settings share.
    fn rope_table(&mut self, rope: &Rope, angle: Angle) -> Result<ValueId, ImportError> {
        let name = format!("{}.{angle}", rope.name());
        if let Some(known) = self.graph.find(&name) {
            return Ok(known);
        }
        let shape = [Symbol::Capacity.into(), rope.pairs().into()];
        self.origins.insert(name.clone(), Origin::Rope(RopeTable { angle, rope: rope.clone() }));
        Ok(self.graph.weight(&name, shape, DType::F32)?)
    }

    /// Applies the rotary position embedding `rope` to `x`, which has `heads` heads, at `positions`.
    pub(crate) fn rotate(
        &mut self,
        name: &str,
        x: ValueId,
        heads: usize,
        rope: &Rope,
        positions: ValueId,
    ) -> Result<ValueId, ImportError> {
        let (cosines, sines) = (self.rope_table(rope, Angle::Cosine)?, self.rope_table(rope, Angle::Sine)?);
        Ok(self.graph.node(name, RotaryEmbedding { heads }, &[x, cosines, sines, positions])?)
    }

    /// Causal attention of `q` over all keys and values so far: `k` and `v` are appended to the layer's KV cache
    /// first.
    pub(crate) fn cached_attention(
        &mut self,
        name: &str,
        attention: AttentionConfig,
        [q, k, v]: [ValueId; 3],
    ) -> Result<ValueId, ImportError> {
        let heads = attention.heads;
        let mut append = |part: &str, value: ValueId| {
            let width = heads.kv_heads * heads.head_dim;
            let shape = [Symbol::Batch.into(), Symbol::Capacity.into(), width.into()];
            let state = self.graph.state(&format!("{name}.{part}_cache"), shape)?;
            self.graph.node(&format!("{name}.{part}_append"), TensorScatter { heads: heads.kv_heads }, &[state, value])
        };
        let (k, v) = (append("k", k)?, append("v", v)?);
        self.attention(name, attention, true, [q, k, v])
    }

    /// Attention of `q` over `k` and `v`, without a KV cache of its own.
    pub(crate) fn attention(
        &mut self,
        name: &str,
        attention: AttentionConfig,
        causal: bool,
        qkv: [ValueId; 3],
    ) -> Result<ValueId, ImportError> {
        let AttentionConfig { heads: Heads { heads, kv_heads, .. }, scale, window, softcap } = attention;
        let op = Attention { heads, kv_heads, scale, causal, window, softcap };
        let [q, k, v] = qkv;
        let range = self.key_range()?;
        Ok(self.graph.node(name, op, &[q, k, v, range])?)
    }

    /// The input `key_range`, `[batch, 2]`: the positions `start..end` of each sequence that are not padding.
    fn key_range(&mut self) -> Result<ValueId, ImportError> {
        match self.graph.find("key_range") {
            Some(known) => Ok(known),
            None => Ok(self.graph.input("key_range", [Symbol::Batch.into(), 2.into()], DType::U32)?),
        }
    }

    /// Adds the output `logits`, `[batch, keep, vocabulary]`. They are computed for the last `keep` positions only,
    /// since the head is the widest product.
    pub(crate) fn logits(&mut self, hidden: ValueId, logits: &Logits) -> Result<(), ImportError> {
        let weight = self.weight(&logits.tensor, &logits.shape)?;
        let last = Slice { axis: 1, start: None, len: Symbol::Keep.into() };
        let last = self.graph.node("last_positions", last, &[hidden])?;
        let mut value = self.graph.node("lm_head", Linear, &[last, weight])?;
        if let Some(cap) = logits.softcap {
            value = self.unary("lm_head.capped", UnaryFunction::Softcap(cap), value)?;
        }
        Ok(self.graph.output("logits", value)?)
    }

    /// Adds the output `hidden`: the hidden states of every position, or, with pooling, their sum over the positions,
    /// weighted by the input `pooling_weights`.
    pub(crate) fn pooled(&mut self, hidden: ValueId, pooling: Pooling) -> Result<(), ImportError> {
        let pooled = if pooling == Pooling::None {
            hidden
        } else {
            let weights = [Symbol::Batch.into(), Symbol::Seq.into()];
            let weights = self.graph.input("pooling_weights", weights, DType::F32)?;
            self.graph.node("pooling", Reduce { kind: ReduceKind::Weighted, axis: 1 }, &[hidden, weights])?
        };
        Ok(self.graph.output("hidden", pooled)?)
    }

    /// The hidden state of the first position, `[batch, hidden]`.
    pub(crate) fn first_position(&mut self, name: &str, hidden: ValueId) -> Result<ValueId, ImportError> {
        let first = Slice { axis: 1, start: Some(0), len: 1.into() };
        let first = self.graph.node(&format!("{name}.first"), first, &[hidden])?;
        Ok(self.graph.node(name, Reduce { kind: ReduceKind::Sum, axis: 1 }, &[first])?)
    }
}
