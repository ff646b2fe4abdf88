//! What an engine runs, wherever it came from: a graph, the weights that it reads, and the facts that a caller needs.
//!
//! This module deliberately knows no file format and no model family. [`Model::from_graph`] takes a graph of one's own;
//! [`crate::import`] makes models of folders. Read [`crate::generate`] next for what runs one.

mod pooling;
mod scores;
mod texts;

pub use pooling::Pooling;
pub use scores::{Probability, ScoreActivation, Scores};
pub use texts::TextSettings;

use crate::graph::{Graph, GraphError, Source, ValueId};
use crate::tensor::{Region, Tensor};
use crate::weights::SourceError;
use crate::weights::Weights;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The output that [`Model::with_hidden_states`] adds.
pub const STATES: &str = "hidden states";

/// What a person may want to know of a model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// `model_type` of its configuration.
    pub family: String,
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

/// Where a model's weights and files come from.
///
/// A folder of files is one source, made-up weights are another. All methods but those of [`Weights`] have a default that
/// suits a source without files.
pub trait ModelSource: Weights {
    /// The path of the source, for messages: a folder, or a made-up name.
    fn path(&self) -> &Path;

    /// What the source's file `name` holds; `None` where there is no such file. Errors when it cannot be read.
    fn file(&self, _name: &str) -> Result<Option<Cow<'static, [u8]>>, SourceError> {
        Ok(None)
    }

    /// The variables that name special tokens to a chat template, `bos_token` for example, each with its token.
    ///
    /// Errors when a file cannot be read.
    fn special_tokens(&self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(Vec::new())
    }

    /// The path and the text of the chat template. Errors when a file cannot be read, or when none of several templates is
    /// the default.
    fn chat_template(&self) -> Result<Option<(PathBuf, String)>, SourceError> {
        Ok(None)
    }

    /// Bytes of all weights as the source stores them.
    fn weight_bytes(&self, graph: &Graph) -> u64 {
        let fixed = |shape: &[crate::shape::Dim]| shape.iter().filter_map(|d| d.fixed()).fold(1, u64_times);
        weights(graph).map(|value| fixed(&value.shape).saturating_mul(value.dtype.size() as u64)).sum()
    }

    /// How many parameters the weights hold; a tied weight counts once and a computed table not at all.
    fn parameters(&self, graph: &Graph) -> u64 {
        weights(graph).map(|value| value.shape.iter().filter_map(|d| d.fixed()).fold(1, u64_times)).sum()
    }

    /// Bytes of weights read so far, by all ranks together; 0 where the source does not count them.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// Reads every weight and errors at the first NaN or infinity. `progress` is told the bytes of each block read.
    fn check(&self, graph: &Graph, progress: &dyn Fn(u64)) -> Result<(), SourceError>;
}

fn u64_times(product: u64, n: usize) -> u64 {
    product.saturating_mul(n as u64)
}

/// The weights of `graph`.
fn weights(graph: &Graph) -> impl Iterator<Item = &crate::graph::Value> {
    graph.values().map(|(_, value)| value).filter(|value| value.source == Source::Weight)
}

/// A graph, its weights and what is known of both.
pub struct Model {
    source: Arc<dyn ModelSource>,
    graph: Graph,
    layers: Vec<ValueId>,
    /// The last hidden states, before anything pools them.
    hidden: Option<ValueId>,
    info: ModelInfo,
}

impl Model {
    /// A model of parts that an import has made: `hidden` is the value of the last hidden states, `layers` the output of
    /// each layer.
    pub(crate) fn new(
        source: Arc<dyn ModelSource>,
        graph: Graph,
        info: ModelInfo,
        layers: Vec<ValueId>,
        hidden: Option<ValueId>,
    ) -> Model {
        Model { source, graph, layers, hidden, info }
    }

    /// The same model with an output [`STATES`] beside its own: the last hidden states of every position, before
    /// anything pools or classifies them. A model whose own output they are stays as it is.
    ///
    /// Plans for the one are plans for the other. Errors when it has the output already.
    pub fn with_hidden_states(mut self) -> Result<Model, GraphError> {
        if let Some(hidden) = self.hidden
            && self.graph.outputs().iter().all(|(_, value)| *value != hidden)
        {
            self.graph.output(STATES, hidden)?;
        }
        Ok(self)
    }

    /// The same model with an output `layer N` after every layer, for comparing them one by one.
    ///
    /// Plans for the one are plans for the other. Errors when it has them already.
    pub fn with_layer_outputs(mut self) -> Result<Model, GraphError> {
        for (n, &layer) in self.layers.iter().enumerate() {
            self.graph.output(&format!("layer {n}"), layer)?;
        }
        Ok(self)
    }

    /// Its computation.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What is known of it: its family, the size of its vocabulary, its longest context and so on.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The folder's path; a model that is not from a folder has a made-up one.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// A file of the model's folder, if it is there. Errors when it cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, SourceError> {
        self.source.file(name)
    }

    /// Where a file of the folder lies, for messages.
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.source.path().join(name)
    }

    /// The variables that name special tokens to a chat template, `bos_token` for example, each with its token.
    ///
    /// Errors when a file cannot be read.
    pub fn special_tokens(&self) -> Result<Vec<(String, String)>, SourceError> {
        self.source.special_tokens()
    }

    /// The file and the text of its chat template, if it has one.
    ///
    /// Errors when a file cannot be read, or when it has several templates and none is the default.
    pub fn chat_template(&self) -> Result<Option<(PathBuf, String)>, SourceError> {
        self.source.chat_template()
    }

    /// Bytes of all weights in their files, or as they would be there.
    pub fn weight_bytes(&self) -> u64 {
        self.source.weight_bytes(&self.graph)
    }

    /// How many parameters it has: elements of its weights, where a tied weight counts once.
    pub fn parameters(&self) -> u64 {
        self.source.parameters(&self.graph)
    }

    /// Bytes of weights read so far, by all ranks.
    pub fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// Reads every weight that ranks would read, block by block, and makes sure that all are finite.
    ///
    /// `progress` is told the bytes of each block; all together are at most [`Model::weight_bytes`]. Errors at the first
    /// NaN or infinity, in the order of the graph.
    pub fn check(&self, progress: &dyn Fn(u64)) -> Result<(), SourceError> {
        self.source.check(&self.graph, progress)
    }
}

impl Weights for Model {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        self.source.read(name, shape, region)
    }
}
