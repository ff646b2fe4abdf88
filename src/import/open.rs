//! Opens a [`Model`] from a folder, from the embedded demo, or from a configuration with random weights.
//!
//! This module deliberately knows no plan and no device: each rank later reads its own shards from the open files.
//! Read `blocks/builder.rs` for how families build a graph, and `families/` for each family.

use crate::graph::Graph;
use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::classifier;
use crate::import::blocks::classifier::HeadKind;
use crate::import::blocks::origin::Origin;
use crate::import::check;
use crate::import::families::FAMILIES;
use crate::import::files::demo::demo;
use crate::import::files::folder::Folder;
use crate::import::files::random::RandomTensors;
use crate::import::files::tensors::{FileTensors, Tensors};
use crate::import::files::{sentence, special};
use crate::model::{Model, ModelInfo, ModelSource, Pooling};
use crate::model::{Scores, TextSettings};
use crate::tensor::{DType, Region, Tensor};
use crate::weights::SourceError;
use crate::weights::Weights;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The output that a model's graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The output that the folder was saved for. For a decoder: logits, or hidden states if it was saved without a
    /// head. For an encoder: scores if it was saved with a classification head, otherwise hidden states. Hidden states
    /// are pooled as the folder's sentence-transformers settings say.
    Default,
    /// The last hidden states, pooled as the folder's sentence-transformers settings say, or averaged over all
    /// positions if it has none.
    Embedding,
    /// The last hidden states, pooled in the given way, whatever the folder says.
    Hidden(Pooling),
}

/// The [`ModelSource`] of a model that was opened from a folder: its files and its weights, which may be random.
struct Imported {
    folder: Folder,
    tensors: Box<dyn Tensors>,
    /// For each weight of the graph, by name, where its elements come from.
    origins: HashMap<String, Origin>,
}

impl Model {
    /// Opens the model in the folder at `path`. Reads only configurations and the headers of weight files. Errors when
    /// a file is missing or damaged, and as [`Model::from_folder`].
    pub fn open(path: impl AsRef<Path>) -> Result<Model, ImportError> {
        Model::from_folder(Folder::open(path)?, Head::Default)
    }

    /// Opens the demo model that is embedded in the program: a Llama of 2.6 M parameters.
    pub fn demo() -> Result<Model, ImportError> {
        Model::from_folder(demo()?, Head::Default)
    }

    /// The model that the configuration file at `path` describes, with random weights of `dtype`.
    ///
    /// An element is computed when a rank reads it, from `seed`, the name of its tensor and its index, so that the
    /// weights are the same however the model is split. Errors as [`Model::from_folder`], and when a tensor would have
    /// more than 2^40 elements.
    #[doc(hidden)]
    pub fn random(path: impl AsRef<Path>, dtype: DType, seed: u64, head: Head) -> Result<Model, ImportError> {
        Model::random_from(Folder::bare(path)?, dtype, seed, head)
    }

    /// As [`Model::random`], with the configuration of `folder`. The folder's own weights are not used.
    #[doc(hidden)]
    pub fn random_from(folder: Folder, dtype: DType, seed: u64, head: Head) -> Result<Model, ImportError> {
        let tensors = RandomTensors::new(folder.path(), dtype, seed);
        Model::build(folder, Box::new(tensors), head)
    }

    /// Opens the model in `folder`, with a graph that computes the output `head`.
    ///
    /// Errors when the family is not supported, when a configuration has a wrong value or fields that are not
    /// understood (the error lists all of these fields), and when tensors are missing or do not have the shapes that
    /// the configuration requires (the error lists all of these tensors).
    pub fn from_folder(folder: Folder, head: Head) -> Result<Model, ImportError> {
        let tensors = FileTensors::open(&folder);
        Model::build(folder, Box::new(tensors), head)
    }

    fn build(folder: Folder, tensors: Box<dyn Tensors>, head: Head) -> Result<Model, ImportError> {
        let name = folder.config().str("model_type")?;
        let supported = || FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let family = FAMILIES.iter().find(|(n, _)| *n == name);
        let Some((name, build)) = family else {
            return Err(ImportError::Unsupported {
                what: "model_type",
                name: name.to_string(),
                supported: supported(),
            });
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
            // Logits are built unless the folder was saved from a class without a head and has no head tensor. If it
            // was saved from a class with a head and the tensor is missing, building the logits reports that as an
            // error, instead of silently returning hidden states.
            (Head::Default, Some(head), _) if !(saved_headless && missing_head.is_some()) => {
                builder.logits(family.hidden, head)?;
                generates = true;
            }
            (Head::Default, None, Some(head)) => {
                head.output(&mut builder, family.hidden)?;
                let activation = classifier::activation(&folder, head.labels.len())?;
                let probability = classifier::probability(config, head.labels.len())?;
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
        let end_tokens = special::end_tokens(&folder, config, &family.end_tokens, family.vocabulary)?;
        let info = ModelInfo {
            family: name.to_string(),
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
        let source = Imported { folder, tensors, origins };
        Ok(Model::new(Arc::new(source), graph, info, layers, Some(family.hidden)))
    }
}

impl ModelSource for Imported {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, SourceError> {
        Ok(self.folder.bytes(name)?)
    }

    fn special_tokens(&self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(special::names(&self.folder)?)
    }

    fn chat_template(&self) -> Result<Option<(PathBuf, String)>, SourceError> {
        Ok(special::chat_template(&self.folder)?)
    }

    fn weight_bytes(&self, _: &Graph) -> u64 {
        self.tensors.weight_bytes()
    }

    fn parameters(&self, graph: &Graph) -> u64 {
        let weights = graph.values().filter(|(_, v)| v.format().is_some());
        weights
            .filter_map(|(_, v)| match &self.origins[&v.name] {
                Origin::Tensor(joined) => Some(joined.numel() as u64),
                Origin::Rope(_) => None,
            })
            .sum()
    }

    fn bytes_read(&self) -> u64 {
        self.tensors.bytes_read()
    }

    fn check(&self, graph: &Graph, progress: &dyn Fn(u64)) -> Result<(), SourceError> {
        for (_, value) in graph.values() {
            if let Some(Origin::Tensor(joined)) = self.origins.get(&value.name) {
                for view in joined.views() {
                    check::check(&*self.tensors, view, progress)?;
                }
            }
        }
        Ok(())
    }
}

impl Weights for Imported {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        match self.origins.get(name) {
            Some(Origin::Tensor(joined)) => Ok(joined.read(&*self.tensors, region)?),
            Some(Origin::Rope(table)) => Ok(table.read(shape.first().copied().unwrap_or(0), region)?),
            None => Err(SourceError::Missing { name: name.to_string() }),
        }
    }
}
