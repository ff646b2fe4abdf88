//! A model: its graph, and where each of the graph's weights lies in the folder's files.
//!
//! It deliberately knows no plan and no device; a rank that reads its shard reaches straight into the mapped file. Read
//! `builder.rs` for how families make one, and the family files for what they say.

use super::builder::Builder;
use super::classifier::{HeadKind, Probability};
use super::families::FAMILIES;
use super::joined::Joined;
use super::rope::RopeTable;
use super::{FileTensors, Folder, RandomTensors, Scores, Tensors, TextSettings};
use super::{classifier, sentence, special};
use crate::error::{GraphError, ImportError, Result};
use crate::graph::{Graph, Source, ValueId, Weights};
use crate::tensor::{DType, Region, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The output that [`Model::with_hidden_states`] adds.
pub const STATES: &str = "hidden states";

/// How the positions' hidden states become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one.
    Cls,
    /// The last one.
    Last,
    /// Their sum over the root of their number.
    MeanSqrt,
    /// Their mean, each weighted by its position counted from 1.
    WeightedMean,
    /// Not at all: one vector per position.
    #[default]
    None,
}

impl Pooling {
    /// By what each of `n` positions is weighted in the sum that pools them.
    pub fn weights(self, n: usize) -> Vec<f32> {
        self.weights_from(0, n)
    }

    /// As [`Pooling::weights`], where the first `skipped` positions are left out: what sentence-transformers makes of
    /// `include_prompt: false`. A position keeps its number, and where all are left out, all weights are zero, but for the
    /// first position's under [`Pooling::Cls`].
    pub fn weights_from(self, skipped: usize, n: usize) -> Vec<f32> {
        let skipped = skipped.min(n);
        let counted = n - skipped;
        // The sum of the numbers, from 1, of the positions that count.
        let numbers = n * (n + 1) / 2 - skipped * (skipped + 1) / 2;
        let at = |i: usize| match self {
            Pooling::Cls => f64::from(i == if counted == 0 { 0 } else { skipped }),
            Pooling::None => 1.0,
            _ if i < skipped => 0.0,
            Pooling::Mean => 1.0 / counted as f64,
            Pooling::Last => f64::from(i + 1 == n),
            Pooling::MeanSqrt => 1.0 / (counted as f64).sqrt(),
            Pooling::WeightedMean => (i + 1) as f64 / numbers as f64,
        };
        (0..n).map(|i| at(i) as f32).collect()
    }
}

/// What a model's graph ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The folder's own: logits for a decoder; for an encoder the scores of its classification head, or without one its
    /// hidden states, pooled as the folder says. So are a decoder's that was saved without a head.
    Default,
    /// The last hidden states, pooled as the folder says, or to their mean where it says nothing.
    Embedding,
    /// The last hidden states, pooled.
    Hidden(Pooling),
}

/// Where a graph weight's elements come from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Tensors of the folder's files, or made-up ones.
    Tensor(Joined),
    /// A table of angles, made for the session's capacity.
    Rope(RopeTable),
}

/// What a person may want to know of a model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// `model_type` of its configuration.
    pub family: &'static str,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// Positions it was made for.
    pub context: usize,
    /// Ids that end a generation.
    pub end_tokens: Vec<u32>,
    /// The id of a text's first position: what `position_ids` count from.
    pub first_position: usize,
    /// The padding token of a model that gives it no position of its own: where it stands in a text, its position is the
    /// one before [`ModelInfo::first_position`], and the tokens after it go on counting as if it were not there.
    pub padding: Option<u32>,
    /// Token types that it tells apart, as the two texts of a pair are marked; 0 where it has none.
    pub token_types: usize,
    /// Whether it predicts tokens: its output is `logits`. Otherwise it is `scores` or `hidden`.
    pub generates: bool,
    /// The tensor that a decoder's folder lacks, so that it predicts nothing and can only embed.
    pub missing_head: Option<String>,
    /// What its output `scores` is, where it has one.
    pub scores: Option<Scores>,
    /// The names of the scores, in their order.
    pub labels: Vec<String>,
    /// What is to be done to a text before the model reads it.
    pub texts: TextSettings,
    /// Whether pooled embeddings are scaled to length 1.
    pub normalize: bool,
    /// How many of a pooled embedding's first dimensions are kept, after it is scaled; all where it is `None`.
    pub dimensions: Option<usize>,
    /// What pools a text's hidden states: as asked for, or else as the folder says.
    pub pooling: Pooling,
}

/// A model read from a folder, or made up: a graph and its weights.
pub struct Model {
    folder: Folder,
    pub(super) tensors: Box<dyn Tensors>,
    graph: Graph,
    pub(super) origins: HashMap<String, Origin>,
    layers: Vec<ValueId>,
    /// The last hidden states, before anything pools them.
    hidden: ValueId,
    info: ModelInfo,
}

impl Model {
    /// Reads the folder at `path`. Nothing but headers and configurations is read yet.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::from_folder(Folder::open(path)?, Head::Default)
    }

    /// The embedded demo model.
    pub fn demo() -> Result<Model> {
        Model::from_folder(super::demo()?, Head::Default)
    }

    /// The model that the configuration in the file at `path` describes, with random weights of `dtype` that no file
    /// holds.
    ///
    /// They are made as a rank reads them, each element from `seed`, its tensor's name and its own number alone: any cut
    /// sees the same ones. Errors as [`Model::from_folder`], and when a tensor would be larger than any machine holds.
    pub fn random(path: impl AsRef<Path>, dtype: DType, seed: u64, head: Head) -> Result<Model> {
        Model::random_from(Folder::bare(path)?, dtype, seed, head)
    }

    /// As [`Model::random`], of a folder's configuration.
    pub fn random_from(folder: Folder, dtype: DType, seed: u64, head: Head) -> Result<Model> {
        let tensors = RandomTensors::new(folder.path(), dtype, seed);
        Model::build(folder, Box::new(tensors), head)
    }

    /// Builds the graph of `folder` that ends in `head`.
    ///
    /// Errors when the family is not supported, a configuration is senseless or holds fields that are not understood (all
    /// of them are listed), or tensors do not have the shapes that it calls for (all of them are listed).
    pub fn from_folder(folder: Folder, head: Head) -> Result<Model> {
        let tensors = FileTensors::open(&folder);
        Model::build(folder, Box::new(tensors), head)
    }

    fn build(folder: Folder, tensors: Box<dyn Tensors>, head: Head) -> Result<Model> {
        let name = folder.config().str("model_type")?;
        let supported = || FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let family = FAMILIES.iter().find(|(n, _)| *n == name);
        let Some((name, build)) = family else {
            return Err(ImportError::Unsupported {
                what: "model_type",
                name: name.to_string(),
                supported: supported(),
            }
            .into());
        };
        let config = &folder.config().of_family(name);
        if config.has("quantization_config") {
            let reason = "quantised weights are not supported; get the model's folder in f32, f16 or bf16";
            return Err(config.error("quantization_config", reason));
        }
        let sentence = sentence::read(&folder)?;
        let mut builder = Builder::new(config, tensors);
        let family = build(&mut builder)?;
        sentence.check_width(builder.width(family.hidden))?;
        let saved_headless =
            family.logits.is_some() && classifier::decoder_head_kind(config, name)? == HeadKind::Hidden;
        let missing_head = family.logits.as_ref().filter(|head| builder.lacks(&head.tensor));
        let missing_head = missing_head.map(|head| head.tensor.clone());
        let pooling = match (head, sentence.pooling) {
            (Head::Hidden(pooling), _) => pooling,
            (Head::Embedding, Pooling::None) => Pooling::Mean,
            (Head::Embedding | Head::Default, told) => told,
        };
        let (mut scores, mut labels, mut generates) = (None, Vec::new(), false);
        match (head, &family.logits, &family.scores) {
            // Where a class with a head was saved, a head that is missing is an error, and not another model.
            (Head::Default, Some(head), _) if !(saved_headless && missing_head.is_some()) => {
                builder.logits(family.hidden, head)?;
                generates = true;
            }
            (Head::Default, None, Some(head)) => {
                builder.scores(family.hidden, head)?;
                let activation = classifier::activation(&folder, head.labels.len())?;
                let probability = Probability::of(config, head.labels.len())?;
                scores = Some(Scores { labels: head.labels.len(), activation, probability });
                labels.clone_from(&head.labels);
            }
            _ => builder.pooled(family.hidden, pooling)?,
        }
        let layers = std::mem::take(&mut builder.layers);
        let mut texts = if generates {
            TextSettings::default()
        } else {
            sentence.texts(&folder, family.context, scores.is_some())?
        };
        texts.one_segment |= family.token_types == 1;
        config.understood()?;
        let (graph, origins, tensors) = builder.finish(folder.path())?;
        special::check_letters(&folder)?;
        let end_tokens = special::end_tokens(&folder, config, &family)?;
        let info = ModelInfo {
            family: name,
            vocabulary: family.vocabulary,
            context: family.context,
            end_tokens,
            first_position: family.first_position,
            padding: family.padding,
            token_types: family.token_types,
            generates,
            missing_head,
            scores,
            labels,
            texts,
            normalize: sentence.normalize,
            dimensions: sentence.dimensions,
            pooling,
        };
        Ok(Model { folder, tensors, graph, origins, layers, hidden: family.hidden, info })
    }

    /// The same model with an output [`STATES`] beside its own: the last hidden states of every position, before
    /// anything pools or classifies them. A model whose own output they are stays as it is.
    ///
    /// Plans for the one are plans for the other. Errors when it has the output already.
    pub fn with_hidden_states(mut self) -> Result<Model> {
        if self.graph.outputs().iter().all(|(_, value)| *value != self.hidden) {
            self.graph.output(STATES, self.hidden)?;
        }
        Ok(self)
    }

    /// The same model with an output `layer N` after every layer, for comparing them one by one.
    ///
    /// Plans for the one are plans for the other. Errors when it has them already.
    pub fn with_layer_outputs(mut self) -> Result<Model> {
        for (n, &layer) in self.layers.iter().enumerate() {
            self.graph.output(&format!("layer {n}"), layer)?;
        }
        Ok(self)
    }

    /// Its computation.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What a person may want to know of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The folder's path; the embedded demo has a made-up one.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the folder, if it is there.
    pub fn file(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>> {
        self.folder.bytes(name)
    }

    /// Where a file of the folder lies, for messages.
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The variables that name special tokens to a chat template, `bos_token` say, and those tokens.
    ///
    /// Errors when a file cannot be read.
    pub fn special_tokens(&self) -> Result<Vec<(String, String)>> {
        special::names(&self.folder)
    }

    /// The file and the source of its chat template, if it has one.
    ///
    /// Errors when a file cannot be read, or when it has several templates and none is the default.
    pub fn chat_template(&self) -> Result<Option<(PathBuf, String)>> {
        special::chat_template(&self.folder)
    }

    /// Bytes of all weights in their files, or as they would be there.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.weight_bytes()
    }

    /// Elements of the graph's weights that lie in tensors; a tied weight counts once.
    pub fn parameters(&self) -> u64 {
        let weights = self.graph.values().filter(|(_, v)| v.source == Source::Weight);
        weights
            .filter_map(|(_, v)| match &self.origins[&v.name] {
                Origin::Tensor(joined) => Some(joined.numel() as u64),
                Origin::Rope(_) => None,
            })
            .sum()
    }

    /// Bytes of weights read so far, by all ranks.
    pub fn bytes_read(&self) -> u64 {
        self.tensors.bytes_read()
    }
}

impl Weights for Model {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor> {
        match self.origins.get(name) {
            Some(Origin::Tensor(joined)) => joined.read(&*self.tensors, region),
            Some(Origin::Rope(table)) => table.read(shape.first().copied().unwrap_or(0), region),
            None => Err(GraphError::Name { kind: "weight", name: name.to_string(), problem: "does not exist" }.into()),
        }
    }
}
