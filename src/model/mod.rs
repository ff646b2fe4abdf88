//! What an engine runs, whatever its source: a graph, its weights, and the facts that a caller needs.
//!
//! This module deliberately knows no file format and no model family. [`Model::from_graph`] takes a user's own graph;
//! [`crate::import`] makes models from folders. Read [`crate::generate`] next for what runs a model.

mod graph_source;
mod info;
mod pooling;
mod scores;
mod source;
mod texts;

pub use info::ModelInfo;
pub use pooling::Pooling;
pub use scores::{Probability, ScoreActivation, Scores};
pub(crate) use source::ModelSource;
use source::stored_bytes;
pub use texts::TextSettings;

use crate::format::{Format, Stored};
use crate::graph::{Graph, GraphError, Source, Value, ValueId};
use crate::tensor::{Region, Tensor};
use crate::weights::{SourceError, Weights};
use graph_source::GraphSource;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names of the inputs that an engine can supply.
const INPUTS: [&str; 5] = ["input_ids", "position_ids", "token_type_ids", "key_range", "pooling_weights"];

/// The names of the outputs that an engine reads.
const OUTPUTS: [&str; 3] = ["logits", "hidden", "scores"];

/// The output that [`Model::with_hidden_states`] adds.
#[doc(hidden)]
pub const STATES: &str = "hidden states";

/// A graph, its weights, and the facts about it.
pub struct Model {
    source: Arc<dyn ModelSource>,
    graph: Graph,
    layers: Vec<ValueId>,
    /// The last hidden states, before pooling.
    hidden: Option<ValueId>,
    info: ModelInfo,
}

impl Model {
    /// A model made from your own graph, with weights from anywhere: a `HashMap<String, Tensor>`, the safetensors of
    /// [`StoredWeights`](crate::import::StoredWeights), or any [`Weights`]. It is run, verified and measured like any
    /// other.
    ///
    /// An engine gives the graph's inputs by these names, where it has them: `input_ids`, `position_ids` and `token_type_ids`
    /// `[batch, seq]` in u32, `key_range` `[batch, 2]` in u32 (the positions `start..end` that each sequence holds), and
    /// `pooling_weights` `[batch, seq]` in f32. It reads the output `logits` `[batch, keep, vocabulary]` of a model that predicts
    /// tokens, `hidden` of one that embeds, `scores` `[batch, labels]` of a classifier.
    ///
    /// Errors when an input has another name, or when the graph has none of these outputs.
    ///
    /// ```
    /// use fanfold::{Model, graph::Graph, model::ModelInfo, ops::{Gather, Linear}, shape::Symbol, tensor::{DType, Tensor}};
    /// use std::{collections::HashMap, sync::Arc};
    ///
    /// # fn main() -> fanfold::Result<()> {
    /// let mut graph = Graph::new();
    /// let ids = graph.input("input_ids", [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32)?;
    /// let table = graph.weight("table", [16.into(), 4.into()], DType::F32)?;
    /// let x = graph.node("embedding", Gather, &[table, ids])?;
    /// let logits = graph.node("head", Linear, &[x, table])?;
    /// graph.output("logits", logits)?;
    /// let weights = HashMap::from([("table".to_string(), Tensor::f32([16, 4], vec![0.1; 64])?)]);
    /// let model = Model::from_graph(graph, Arc::new(weights), ModelInfo::decoder(16, 128))?;
    /// assert_eq!(model.parameters(), 64);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_graph(graph: Graph, weights: Arc<dyn Weights>, info: ModelInfo) -> Result<Model, GraphError> {
        let unknown =
            |(_, value): &(ValueId, &Value)| value.source == Source::Input && !INPUTS.contains(&value.name.as_str());
        if let Some((_, value)) = graph.values().find(unknown) {
            let reason = format!("is no input that an engine gives; it gives {}", INPUTS.join(", "));
            return Err(GraphError::Value { value: value.name.clone(), reason });
        }
        if !graph.outputs().iter().any(|(name, _)| OUTPUTS.contains(&name.as_str())) {
            let reason = format!("is missing: a model has one of the outputs {}", OUTPUTS.join(", "));
            return Err(GraphError::Value { value: OUTPUTS[0].to_string(), reason });
        }
        let hidden = graph.outputs().iter().find(|(name, _)| name == "hidden").map(|(_, value)| *value);
        Ok(Model::new(Arc::new(GraphSource::new(weights)), graph, info, Vec::new(), hidden))
    }

    /// A model from the parts that an import has made. `hidden` is the value of the last hidden states, `layers` are
    /// the outputs of the layers.
    pub(crate) fn new(
        source: Arc<dyn ModelSource>,
        graph: Graph,
        info: ModelInfo,
        layers: Vec<ValueId>,
        hidden: Option<ValueId>,
    ) -> Model {
        Model { source, graph, layers, hidden, info }
    }

    /// The same model with the additional output [`STATES`]: the last hidden states of every position, before pooling
    /// or classification. A model that already returns them is left unchanged.
    ///
    /// A plan for one of the two models is also a plan for the other. Errors when the model already has an output of
    /// this name.
    #[doc(hidden)]
    pub fn with_hidden_states(mut self) -> Result<Model, GraphError> {
        if let Some(hidden) = self.hidden
            && self.graph.outputs().iter().all(|(_, value)| *value != hidden)
        {
            self.graph.output(STATES, hidden)?;
        }
        Ok(self)
    }

    /// The same model with an output `layer N` after every layer, by which layers can be compared one by one.
    ///
    /// A plan for one of the two models is also a plan for the other. Errors when the model already has such outputs.
    #[doc(hidden)]
    pub fn with_layer_outputs(mut self) -> Result<Model, GraphError> {
        for (n, &layer) in self.layers.iter().enumerate() {
            self.graph.output(&format!("layer {n}"), layer)?;
        }
        Ok(self)
    }

    /// The same model with its matrices stored in `format` on the devices: they are encoded as ranks load them, shard by shard.
    ///
    /// A matrix whose rows are not whole blocks of the format keeps its own, and so do vectors, such as a norm's. Plans are made
    /// for the model that this returns: where a format has blocks, they are never divided.
    pub fn with_weights(self, format: Format) -> Model {
        Model { graph: self.graph.with_matrices(format), ..self }
    }

    /// The model's graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The facts about it: its family, the size of its vocabulary, its longest context and so on.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The folder's path, or a made-up path for a model that is not from a folder.
    #[doc(hidden)]
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The bytes of a file of the model's folder; `None` if it does not exist. Errors when it cannot be read.
    #[doc(hidden)]
    pub fn file(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, SourceError> {
        self.source.file(name)
    }

    /// The path of a file of the folder, for messages.
    #[doc(hidden)]
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.source.path().join(name)
    }

    /// The variables that name special tokens to a chat template, `bos_token` for example, each with its token.
    ///
    /// Errors when a file cannot be read.
    #[doc(hidden)]
    pub fn special_tokens(&self) -> Result<Vec<(String, String)>, SourceError> {
        self.source.special_tokens()
    }

    /// The file and the text of its chat template, if it has one.
    ///
    /// Errors when a file cannot be read, or when it has several templates and none is the default.
    #[doc(hidden)]
    pub fn chat_template(&self) -> Result<Option<(PathBuf, String)>, SourceError> {
        self.source.chat_template()
    }

    /// Bytes of all weights in their files, or in the files that random weights would fill.
    #[doc(hidden)]
    pub fn weight_bytes(&self) -> u64 {
        self.source.weight_bytes(&self.graph)
    }

    /// Bytes of all weights in the formats that the devices hold them in. A tied weight counts once.
    #[doc(hidden)]
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(&self.graph)
    }

    /// The number of parameters: all elements of its weights. A tied weight counts once.
    #[doc(hidden)]
    pub fn parameters(&self) -> u64 {
        self.source.parameters(&self.graph)
    }

    /// Bytes of weights read so far, by all ranks.
    #[doc(hidden)]
    pub fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// Reads all weights that ranks would read, block by block, and checks that they are finite.
    ///
    /// Calls `progress` with the bytes of each block; together they are at most [`Model::weight_bytes`]. Errors at the
    /// first NaN or infinity, in the order of the graph.
    #[doc(hidden)]
    pub fn check(&self, progress: &dyn Fn(u64)) -> Result<(), SourceError> {
        self.source.check(&self.graph, progress)
    }
}

impl Weights for Model {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        self.source.read(name, shape, region)
    }

    fn read_stored(&self, name: &str, shape: &[usize], region: &Region, format: Format) -> Result<Stored, SourceError> {
        self.source.read_stored(name, shape, region, format)
    }
}
