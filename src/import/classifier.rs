//! Classification heads: which folders have one, how many labels it tells apart, and what makes scores of its logits.
//!
//! It deliberately knows no family: each names its head's tensors. Read `bert.rs` for one that does, and
//! [`crate::import::ModelInfo`] for what the engine learns of it.

use super::builder::Builder;
use super::{Config, Folder};
use crate::error::{ImportError, Result};
use crate::graph::ValueId;
use crate::ops::UnaryFunction;

/// What an encoder's folder ends in, by the class that `architectures` names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Hidden states.
    Hidden,
    /// A score per label.
    Scores,
}

/// How a cross-encoder's logits become its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreActivation {
    /// They are its scores.
    Identity,
    /// `1 / (1 + e^-x)`, each by itself: scores between 0 and 1.
    Sigmoid,
}

/// The scores that a classification head makes of a text or a pair of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores {
    /// How many: one for a reranker.
    pub labels: usize,
    /// What a sentence-transformers CrossEncoder makes of them. The graph's output `scores` is before it.
    pub activation: ScoreActivation,
}

impl ScoreActivation {
    /// The score of one logit.
    pub fn apply(self, logit: f32) -> f32 {
        match self {
            ScoreActivation::Identity => logit,
            ScoreActivation::Sigmoid => (1.0 / (1.0 + (-logit as f64).exp())) as f32,
        }
    }
}

/// A head of two products on the first position's hidden state.
pub(super) struct Classifier {
    dense: String,
    activation: UnaryFunction,
    out: &'static str,
    pub(super) labels: usize,
}

/// What a folder of the classes that begin with `class` ends in. Errors on a head that is not supported.
///
/// What predicts masked words is no loss: its encoder is what a person embeds with.
pub(super) fn ending(config: &Config, class: &str) -> Result<Ending> {
    const KNOWN: [(&str, Ending); 4] = [
        ("Model", Ending::Hidden),
        ("ForMaskedLM", Ending::Hidden),
        ("ForPreTraining", Ending::Hidden),
        ("ForSequenceClassification", Ending::Scores),
    ];
    let architectures = config.strings("architectures")?;
    let Some(name) = architectures.first() else { return Ok(Ending::Hidden) };
    let known = name.strip_prefix(class).and_then(|head| KNOWN.iter().find(|(known, _)| *known == head));
    known.map(|(_, ending)| *ending).ok_or_else(|| {
        let supported = KNOWN.map(|(head, _)| format!("{class}{head}")).join(", ");
        ImportError::Unsupported { what: "architecture", name: name.to_string(), supported }.into()
    })
}

impl Classifier {
    /// The head with the products `dense` and `out`, and `activation` between them.
    ///
    /// Its labels are as many as `id2label` names, else `num_labels`, else 2, which transformers leaves unsaid.
    pub(super) fn new(
        config: &Config,
        dense: &str,
        activation: UnaryFunction,
        out: &'static str,
    ) -> Result<Classifier> {
        let named = config.value("id2label").map(|labels| {
            let labels = labels.as_object().map(|labels| labels.len()).filter(|&labels| labels > 0);
            labels.ok_or_else(|| config.error("id2label", "expected an object of labels"))
        });
        let (named, told) = (named.transpose()?, config.opt_usize("num_labels")?);
        if let (Some(named), Some(told)) = (named, told)
            && named != told
        {
            return Err(config.error("num_labels", format!("{told}, and id2label names {named}")));
        }
        Ok(Classifier { dense: dense.to_string(), activation, out, labels: named.or(told).unwrap_or(2) })
    }

    /// The logits of `hidden`, `[batch, labels]`.
    pub(super) fn logits(&self, b: &mut Builder<'_>, hidden: ValueId) -> Result<ValueId> {
        let width = b.graph.value(hidden).shape.last().and_then(|width| width.fixed()).unwrap_or(0);
        let first = b.first_position("scores.position", hidden)?;
        let dense = b.linear(&self.dense, first, [width, width], true)?;
        let dense = b.unary("scores.act", self.activation, dense)?;
        b.linear(self.out, dense, [self.labels, width], true)
    }
}

/// What a CrossEncoder of sentence-transformers makes of the logits of `folder`, which has `labels` of them.
///
/// It is told by config_sentence_transformers.json (since 5.4), in config.json by `sentence_transformers` (since 4.0) or
/// by `sbert_ce_default_activation_function` (before), and else follows from the labels. Errors on any other than the
/// two known, for which sentence-transformers would run the folder's own code or fall back silently.
pub(super) fn activation(folder: &Folder, labels: usize) -> Result<ScoreActivation> {
    let own = folder.json("config_sentence_transformers.json")?;
    let nested = folder.config().object("sentence_transformers")?;
    let older = folder.config().opt_str("sbert_ce_default_activation_function")?;
    let told = |config: &Option<Config>| match config {
        Some(config) => config.opt_str("activation_fn").map(|name| name.map(str::to_string)),
        None => Ok(None),
    };
    let name = match (told(&own)?, told(&nested)?) {
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => match older {
            Some(name) => name.to_string(),
            None if labels == 1 => return Ok(ScoreActivation::Sigmoid),
            None => return Ok(ScoreActivation::Identity),
        },
    };
    match name.as_str() {
        "torch.nn.modules.linear.Identity" => Ok(ScoreActivation::Identity),
        "torch.nn.modules.activation.Sigmoid" => Ok(ScoreActivation::Sigmoid),
        _ => Err(ImportError::Unsupported {
            what: "activation of a cross-encoder",
            name,
            supported: "torch.nn.modules.linear.Identity, torch.nn.modules.activation.Sigmoid".to_string(),
        }
        .into()),
    }
}
