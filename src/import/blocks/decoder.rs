//! The decoder block that most families share: attention and an MLP, each with norms before or after it and a
//! residual connection.
//!
//! A family starts from [`Decoder::read`], which is Llama, and changes the fields in which it differs. A setting is
//! enough for most; where weights are named or stored differently, the family supplies a function. The block
//! deliberately knows no `model_type`. Read `llama.rs` for the plain case, then `gemma2.rs` for one that differs in
//! nearly everything.

use crate::graph::ValueId;
use crate::import::ImportError;
use crate::import::blocks::builder::{AttentionConfig, Builder, Heads, Logits};
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::import::blocks::layers::Layer;
use crate::import::blocks::norm::Norm;
use crate::import::blocks::rope::Rope;
use crate::import::files::config::Config;
use crate::ops::{Reshape, UnaryFunction};
use std::fmt;

/// One of the three projections that are attention's inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    Query,
    Key,
    Value,
}

impl Projection {
    const ALL: [Projection; 3] = [Projection::Query, Projection::Key, Projection::Value];

    /// How many heads the projection has: query heads or KV heads.
    pub(crate) fn heads(self, heads: Heads) -> usize {
        if self == Projection::Query { heads.heads } else { heads.kv_heads }
    }

    /// The projection's rows in a fused weight that holds all queries, then all keys, then all values.
    pub(crate) fn rows(self, heads: Heads) -> std::ops::Range<usize> {
        let before = Projection::ALL.iter().take_while(|p| **p != self).map(|p| p.heads(heads)).sum::<usize>();
        before * heads.head_dim..(before + self.heads(heads)) * heads.head_dim
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Projection::Query => "q",
            Projection::Key => "k",
            Projection::Value => "v",
        })
    }
}

/// The block that a function adds nodes to.
pub(crate) struct Block {
    /// The prefix of all blocks' tensor names, for example `model.layers`.
    layers: String,
    /// The block's number, from 0.
    pub(crate) index: usize,
}

impl Block {
    /// The full tensor name of `part` in this block: `model.layers.3.mlp.up_proj` for `mlp.up_proj`.
    pub(crate) fn name(&self, part: &str) -> String {
        format!("{}.{}.{part}", self.layers, self.index)
    }
}

/// A function that adds one module of a block, such as its MLP. It takes the module's input and returns its output.
pub(crate) type BuildModule = Box<dyn Fn(&mut Builder<'_>, &Block, ValueId) -> Result<ValueId, ImportError>>;

/// A function that adds one projection of a block. It takes the block's normalised input and returns the queries, keys
/// or values.
pub(crate) type BuildProjection =
    Box<dyn Fn(&mut Builder<'_>, &Block, Projection, ValueId) -> Result<ValueId, ImportError>>;

/// The places where a block may have a norm. Each has the name of the norm's weight, or `None` for no norm.
#[derive(Clone, Copy)]
pub(crate) struct Norms {
    /// The norm of attention's input (pre-norm).
    pub(crate) before_attention: Option<&'static str>,
    /// The norm of attention's output, before the residual is added (post-norm).
    pub(crate) after_attention: Option<&'static str>,
    /// The norm of the MLP's input.
    pub(crate) before_mlp: Option<&'static str>,
    /// The norm of the MLP's output.
    pub(crate) after_mlp: Option<&'static str>,
}

/// Norms of queries and keys before rotation, with the weights `ATTENTION.q_norm` and `ATTENTION.k_norm`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkNorm {
    None,
    /// Each head is normalised by itself; all heads share one weight of the head's width (Qwen 3, Gemma 3).
    Heads,
    /// All heads are normalised together, over their whole width (OLMo 2).
    Whole,
}

/// Tensor name parts that differ between families, for the modules that [`Decoder::build`] itself creates. The
/// projections' names are given to their functions instead.
pub(crate) struct TensorNames {
    /// The prefix of all tensor names but the head's.
    pub(crate) prefix: String,
    pub(crate) embedding: &'static str,
    /// The list of blocks: `layers` in `layers.0`.
    pub(crate) layers: &'static str,
    /// The attention module in a block.
    pub(crate) attention: &'static str,
    /// The MLP module in a block.
    pub(crate) mlp: &'static str,
    pub(crate) last_norm: &'static str,
    pub(crate) head: &'static str,
}

/// Sizes and settings that families read under different names from config.json.
pub(crate) struct Settings {
    pub(crate) hidden: usize,
    pub(crate) heads: Heads,
    /// The inner width of the MLP.
    pub(crate) inner: usize,
    pub(crate) activation: UnaryFunction,
    pub(crate) norm: Norm,
    pub(crate) rope: Rope,
}

/// The description of a decoder that a family fills in and [`Decoder::build`] turns into nodes.
pub(crate) struct Decoder {
    pub(crate) hidden: usize,
    pub(crate) vocabulary: usize,
    /// The longest context that the model was trained for.
    pub(crate) context: usize,
    pub(crate) heads: Heads,
    pub(crate) layers: Vec<Layer>,
    pub(crate) names: TensorNames,
    pub(crate) norm: Norm,
    pub(crate) norms: Norms,
    pub(crate) qk_norm: QkNorm,
    /// Parallel residual (GPT-NeoX, Falcon): the MLP reads the block's input instead of attention's output. Without a
    /// norm of its own it reads attention's normalised input.
    pub(crate) parallel: bool,
    /// The factor by which embeddings are multiplied (Gemma: the square root of the hidden width).
    pub(crate) embedding_scale: Option<f32>,
    /// The factor by which products of queries and keys are multiplied.
    pub(crate) attention_scale: f32,
    /// The soft cap of attention scores (Gemma 2).
    pub(crate) attention_softcap: Option<f32>,
    /// The soft cap of logits (Gemma 2).
    pub(crate) logit_softcap: Option<f32>,
    /// Whether the configuration says that the head shares the embedding's weight.
    pub(crate) tied: bool,
    pub(crate) project: BuildProjection,
    /// The output projection of attention.
    pub(crate) output: BuildModule,
    pub(crate) mlp: BuildModule,
}

impl Decoder {
    /// Llama without any bias, of the sizes in `config`. Errors when a size is missing or not valid.
    pub(crate) fn read(b: &Builder<'_>, config: &Config) -> Result<Decoder, ImportError> {
        let heads = Heads::read(config, config.usize("hidden_size")?)?;
        Decoder::turned(b, config, Rope::of_whole_heads(config, heads.head_dim)?)
    }

    /// As [`Decoder::read`], with the rotary embedding `rope`.
    pub(crate) fn turned(b: &Builder<'_>, config: &Config, rope: Rope) -> Result<Decoder, ImportError> {
        let hidden = config.usize("hidden_size")?;
        let (heads, inner) = (Heads::read(config, hidden)?, config.usize("intermediate_size")?);
        let (activation, norm) = (b.activation(config, "hidden_act")?, Norm::rms(config)?);
        Decoder::of(b, config, Settings { hidden, heads, inner, activation, norm, rope })
    }

    /// As [`Decoder::turned`], with sizes that the family read itself.
    pub(crate) fn of(b: &Builder<'_>, config: &Config, settings: Settings) -> Result<Decoder, ImportError> {
        let Settings { hidden, heads, inner, activation, norm, rope } = settings;
        let count = layers::count(config, "num_hidden_layers")?;
        Ok(Decoder {
            hidden,
            vocabulary: config.usize("vocab_size")?,
            context: rope.context(config.usize("max_position_embeddings")?),
            heads,
            layers: vec![Layer { window: None, rope: Some(rope) }; count],
            names: TensorNames {
                prefix: b.prefix(&["model."], "embed_tokens.weight").to_string(),
                embedding: "embed_tokens",
                layers: "layers",
                attention: "self_attn",
                mlp: "mlp",
                last_norm: "norm",
                head: "lm_head",
            },
            norm,
            norms: Norms {
                before_attention: Some("input_layernorm"),
                after_attention: None,
                before_mlp: Some("post_attention_layernorm"),
                after_mlp: None,
            },
            qk_norm: QkNorm::None,
            parallel: false,
            embedding_scale: None,
            attention_scale: 1.0 / (heads.head_dim as f32).sqrt(),
            attention_softcap: None,
            logit_softcap: None,
            tied: config.flag("tie_word_embeddings")?,
            project: projections(hidden, heads, false),
            output: output("self_attn.o_proj", [hidden, heads.width()], false),
            mlp: gated_mlp("mlp", [inner, hidden], activation, false),
        })
    }

    /// Sets whether all four of attention's projections have a bias.
    pub(crate) fn biased_attention(&mut self, bias: bool) {
        self.project = projections(self.hidden, self.heads, bias);
        self.output = output("self_attn.o_proj", [self.hidden, self.heads.width()], bias);
    }

    /// Adds the decoder's nodes to the graph. Errors when the graph refuses one.
    pub(crate) fn build(self, b: &mut Builder<'_>) -> Result<Family, ImportError> {
        let TensorNames { prefix, embedding, layers, mlp, last_norm, head, .. } = &self.names;
        let top = |part: &str| format!("{prefix}{part}");
        let (ids, positions) = (b.ids("input_ids")?, b.ids("position_ids")?);
        let shape = [self.vocabulary, self.hidden];
        let weight = |name: &str| format!("{name}.weight");
        let vocabulary = b.vocabulary(self.tied, &weight(&top(embedding)), &weight(head))?;
        let mut x = b.gather_of(&top(embedding), &vocabulary.embedding, ids, shape)?;
        if let Some(scale) = self.embedding_scale {
            x = b.unary(&top(&format!("{embedding}.scaled")), UnaryFunction::Scale(scale), x)?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let block = Block { layers: top(layers), index };
            let read = self.normed(b, &block, self.norms.before_attention, x)?;
            let attended = self.attend(b, &block, layer, read, positions)?;
            let attended = self.normed(b, &block, self.norms.after_attention, attended)?;
            let residual = block.name(&format!("{}.residual", self.names.attention));
            let read = match (self.parallel, self.norms.before_mlp) {
                (true, None) => read,
                (true, norm) => self.normed(b, &block, norm, x)?,
                (false, norm) => {
                    x = b.add(&residual, x, attended)?;
                    self.normed(b, &block, norm, x)?
                }
            };
            let out = (self.mlp)(b, &block, read)?;
            let mut out = self.normed(b, &block, self.norms.after_mlp, out)?;
            if self.parallel {
                out = b.add(&residual, attended, out)?;
            }
            x = b.add(&block.name(&format!("{mlp}.residual")), x, out)?;
            b.layers.push(x);
        }
        let hidden = b.norm(&top(last_norm), x, self.hidden, self.norm)?;
        let logits = Logits { tensor: vocabulary.head, shape, softcap: self.logit_softcap };
        Ok(Family::decoder(hidden, logits, self.vocabulary, self.context))
    }

    fn normed(
        &self,
        b: &mut Builder<'_>,
        block: &Block,
        norm: Option<&str>,
        x: ValueId,
    ) -> Result<ValueId, ImportError> {
        norm.map_or(Ok(x), |name| b.norm(&block.name(name), x, self.hidden, self.norm))
    }

    /// Attention of one block, from its normalised input `x` to the output projection.
    fn attend(
        &self,
        b: &mut Builder<'_>,
        block: &Block,
        layer: &Layer,
        x: ValueId,
        positions: ValueId,
    ) -> Result<ValueId, ImportError> {
        let name = |part: &str| block.name(&format!("{}{part}", self.names.attention));
        let mut qkv = [x; 3];
        for (slot, part) in qkv.iter_mut().zip(Projection::ALL) {
            *slot = (self.project)(b, block, part, x)?;
            if part == Projection::Value {
                continue;
            }
            let norm = name(&format!(".{part}_norm"));
            *slot = match self.qk_norm {
                QkNorm::None => *slot,
                QkNorm::Heads => self.head_norm(b, &norm, *slot)?,
                QkNorm::Whole => b.norm(&norm, *slot, part.heads(self.heads) * self.heads.head_dim, self.norm)?,
            };
            if let Some(rope) = &layer.rope {
                *slot = b.rotate(&name(&format!(".{part}_rope")), *slot, part.heads(self.heads), rope, positions)?;
            }
        }
        let attention = AttentionConfig {
            heads: self.heads,
            scale: self.attention_scale,
            window: layer.window,
            softcap: self.attention_softcap,
        };
        let attended = b.cached_attention(&name(""), attention, qkv)?;
        (self.output)(b, block, attended)
    }

    /// Normalises each head of `x` by itself.
    fn head_norm(&self, b: &mut Builder<'_>, prefix: &str, x: ValueId) -> Result<ValueId, ImportError> {
        let split = Reshape::new("b s (h d) -> b s h d", &[("d", self.heads.head_dim)]);
        let split = b.graph.node(&format!("{prefix}.heads"), split, &[x])?;
        let normed = b.norm(prefix, split, self.heads.head_dim, self.norm)?;
        Ok(b.graph.node(&format!("{prefix}.joined"), Reshape::new("b s h d -> b s (h d)", &[]), &[normed])?)
    }
}

/// Query, key and value projections with a weight each.
pub(crate) fn projections(hidden: usize, heads: Heads, bias: bool) -> BuildProjection {
    Box::new(move |b, block, part, x| {
        let rows = part.heads(heads) * heads.head_dim;
        b.linear(&block.name(&format!("self_attn.{part}_proj")), x, [rows, hidden], bias)
    })
}

/// A linear layer called `name` in its block.
pub(crate) fn output(name: &'static str, shape: [usize; 2], bias: bool) -> BuildModule {
    Box::new(move |b, block, x| b.linear(&block.name(name), x, shape, bias))
}

/// A gated MLP: `down(activation(gate x) * up x)`.
pub(crate) fn gated_mlp(
    name: &'static str,
    [inner, hidden]: [usize; 2],
    activation: UnaryFunction,
    bias: bool,
) -> BuildModule {
    Box::new(move |b, block, x| {
        let name = |part: &str| block.name(&format!("{name}.{part}"));
        let gate = b.linear(&name("gate_proj"), x, [inner, hidden], bias)?;
        let gate = b.unary(&name("act"), activation, gate)?;
        let up = b.linear(&name("up_proj"), x, [inner, hidden], bias)?;
        let gated = b.mul(&name("gated"), gate, up)?;
        b.linear(&name("down_proj"), gated, [hidden, inner], bias)
    })
}

/// A plain MLP: `down(activation(up x))`, with the layers' names `names`.
pub(crate) fn plain_mlp(
    mlp: &'static str,
    names: [&'static str; 2],
    [inner, hidden]: [usize; 2],
    activation: UnaryFunction,
    bias: bool,
) -> BuildModule {
    Box::new(move |b, block, x| {
        let name = |part: &str| block.name(&format!("{mlp}.{part}"));
        let wide = b.linear(&name(names[0]), x, [inner, hidden], bias)?;
        let wide = b.unary(&name("act"), activation, wide)?;
        b.linear(&name(names[1]), wide, [hidden, inner], bias)
    })
}
