//! Opens a model: from a folder, from the embedded demo, or with random weights from a configuration.
//!
//! It deliberately knows no plan and no device: a rank reads its shard directly from the mapped file. Read
//! `blocks/builder.rs` for how families build a graph, and `families/` for each family.

use crate::graph::{Graph, Source};
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

/// The output that a model's graph ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The output that the folder was saved for: a decoder's logits; an encoder's scores, if it has a classification
    /// head, and otherwise its hidden states, pooled as the folder says. A decoder that was saved without a head also
    /// gives hidden states.
    Default,
    /// The last hidden states, pooled as the folder says, or averaged if it says nothing.
    Embedding,
    /// The last hidden states, pooled in this way.
    Hidden(Pooling),
}

/// The weights and files of a model from a folder, or of a model with random weights.
struct Imported {
    folder: Folder,
    tensors: Box<dyn Tensors>,
    /// For each weight of the graph, where its elements are.
    origins: HashMap<String, Origin>,
}

impl Model {
    /// Opens the folder at `path`. Reads only headers and configurations.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, ImportError> {
        Model::from_folder(Folder::open(path)?, Head::Default)
    }

    /// The embedded demo model.
    pub fn demo() -> Result<Model, ImportError> {
        Model::from_folder(demo()?, Head::Default)
    }

    /// The model that the configuration in the file at `path` describes, with random weights of `dtype`.
    ///
    /// Weights are made when a rank reads them. Each element depends only on `seed`, the name of its tensor and its
    /// index, so that every cut sees the same weights. Errors as [`Model::from_folder`], and when a tensor would be
    /// larger than any machine holds.
    #[doc(hidden)]
    pub fn random(path: impl AsRef<Path>, dtype: DType, seed: u64, head: Head) -> Result<Model, ImportError> {
        Model::random_from(Folder::bare(path)?, dtype, seed, head)
    }

    /// As [`Model::random`], with the configuration of a folder.
    #[doc(hidden)]
    pub fn random_from(folder: Folder, dtype: DType, seed: u64, head: Head) -> Result<Model, ImportError> {
        let tensors = RandomTensors::new(folder.path(), dtype, seed);
        Model::build(folder, Box::new(tensors), head)
    }

    /// Builds the graph of `folder` that ends in `head`.
    ///
    /// Errors when the family is not supported, when a configuration has a wrong value or fields that are not
    /// understood (the error lists all of them), and when tensors do not have the shapes that it requires (it lists
    /// all of them).
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
            // If the class that was saved has a head and the files lack it, that is an error: the model must not
            // silently become another one.
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
        let weights = graph.values().filter(|(_, v)| v.source == Source::Weight);
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
