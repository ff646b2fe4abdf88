//! Classification heads: which folders have one, how many labels it has, and which function turns its logits into
//! scores.
//!
//! It deliberately knows no family: each names its head's tensors. Read `families/bert.rs` for one that does, and
//! [`crate::model::ModelInfo`] for what an engine is told of the head.

use crate::graph::ValueId;
use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::files::config::Config;
use crate::import::files::folder::Folder;
use crate::model::{Probability, ScoreActivation};
use crate::ops::UnaryFunction;

/// The kind of head that a folder was saved with. It follows from the class that `architectures` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadKind {
    /// No head: the model ends in hidden states.
    Hidden,
    /// A score per label.
    Scores,
    /// A logit per token of the vocabulary.
    Logits,
}

/// The function that transformers' pipeline applies to `labels` logits. `problem_type` decides it, or, when that field
/// is missing, the number of labels.
pub(crate) fn probability(config: &Config, labels: usize) -> Result<Probability, ImportError> {
    const KNOWN: [&str; 3] = ["regression", "multi_label_classification", "single_label_classification"];
    let problem = config.opt_str("problem_type")?;
    match problem {
        Some("regression") => Ok(Probability::Identity),
        Some("multi_label_classification") => Ok(Probability::Sigmoid),
        None | Some("single_label_classification") if labels == 1 => Ok(Probability::Sigmoid),
        None | Some("single_label_classification") => Ok(Probability::Softmax),
        Some(other) => {
            let (name, supported) = (other.to_string(), KNOWN.join(", "));
            Err(ImportError::Unsupported { what: "problem_type", name, supported })
        }
    }
}

/// A head of two linear layers on the first position's hidden state.
pub(crate) struct Classifier {
    dense: String,
    activation: UnaryFunction,
    out: &'static str,
    /// The labels' names.
    pub(crate) labels: Vec<String>,
}

/// The kind of head of a folder whose class begins with `class` (`Bert` in `BertForSequenceClassification`). Errors
/// on a head that is not supported.
///
/// A masked-language-model head is ignored: embedding uses the encoder only.
pub(crate) fn head_kind(config: &Config, class: &str) -> Result<HeadKind, ImportError> {
    const KNOWN: [(&str, HeadKind); 4] = [
        ("Model", HeadKind::Hidden),
        ("ForMaskedLM", HeadKind::Hidden),
        ("ForPreTraining", HeadKind::Hidden),
        ("ForSequenceClassification", HeadKind::Scores),
    ];
    let architectures = config.strings("architectures")?;
    let Some(name) = architectures.first() else { return Ok(HeadKind::Hidden) };
    let known = name.strip_prefix(class).and_then(|head| KNOWN.iter().find(|(known, _)| *known == head));
    known.map(|(_, ending)| *ending).ok_or_else(|| {
        let supported = KNOWN.map(|(head, _)| format!("{class}{head}")).join(", ");
        ImportError::Unsupported { what: "architecture", name: name.to_string(), supported }
    })
}

/// The kind of head of a decoder folder of the family `model_type`. Errors on a head that does not predict tokens,
/// such as that of `LlamaForSequenceClassification`: without this check the model would run as a plain decoder.
///
/// A class of another name that ends in ForCausalLM is taken for the family's own, since transformers goes by
/// `model_type`.
pub(crate) fn decoder_head_kind(config: &Config, model_type: &str) -> Result<HeadKind, ImportError> {
    const KNOWN: [(&str, HeadKind); 4] = [
        ("Model", HeadKind::Hidden),
        ("ForCausalLM", HeadKind::Logits),
        ("LMHeadModel", HeadKind::Logits),
        ("ForConditionalGeneration", HeadKind::Logits),
    ];
    let Some(name) = config.strings("architectures")?.first().copied() else { return Ok(HeadKind::Logits) };
    if name.ends_with("ForCausalLM") {
        return Ok(HeadKind::Logits);
    }
    let letters = |text: &str| -> String { text.chars().filter(|c| c.is_ascii_alphanumeric()).collect() };
    let family = letters(model_type);
    // The class of `gemma3_text` may be Gemma3TextModel or Gemma3ForCausalLM.
    let names = [family.as_str(), family.trim_end_matches("text")];
    let known = |head: &str| {
        let class = name.strip_suffix(head)?;
        names.iter().find(|family| family.eq_ignore_ascii_case(class))
    };
    KNOWN.iter().find(|(head, _)| known(head).is_some()).map(|(_, ending)| *ending).ok_or_else(|| {
        let heads = KNOWN.map(|(head, _)| format!("...{head}")).join(", ");
        let supported =
            format!("{heads} of {model_type}; if the field architectures is ignored, model_type alone decides");
        ImportError::Unsupported { what: "architecture", name: name.to_string(), supported }
    })
}

/// The labels' names: those of `id2label`, or else LABEL_0 and so on. Without `id2label` there are `num_labels` of
/// them, or 2, the default that transformers does not write.
fn labels(config: &Config) -> Result<Vec<String>, ImportError> {
    let told = config.opt_usize("num_labels")?;
    let Some(named) = config.value("id2label") else {
        let count = told.unwrap_or(2);
        if count > MAX_LABELS {
            return Err(config.error("num_labels", format!("{count} labels; there may be {MAX_LABELS}")));
        }
        return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
    };
    let wrong = || config.error("id2label", "expected an object of labels, one for each number from 0");
    let named = named.as_object().filter(|named| !named.is_empty()).ok_or_else(wrong)?;
    let text = |id: usize| named.get(&id.to_string()).and_then(|label| label.as_str()).map(str::to_string);
    let labels: Vec<String> =
        (0..named.len()).map(|id| text(id).ok_or_else(wrong)).collect::<Result<_, ImportError>>()?;
    if let Some(told) = told.filter(|told| *told != labels.len()) {
        return Err(config.error("num_labels", format!("{told}, and id2label names {}", labels.len())));
    }
    Ok(labels)
}

/// The most labels that are accepted.
const MAX_LABELS: usize = 1 << 20;

impl Classifier {
    /// The head with the linear layers `dense` and `out`, and `activation` between them. Errors when the labels are
    /// not well formed.
    pub(crate) fn new(
        config: &Config,
        dense: &str,
        activation: UnaryFunction,
        out: &'static str,
    ) -> Result<Classifier, ImportError> {
        Ok(Classifier { dense: dense.to_string(), activation, out, labels: labels(config)? })
    }

    /// Adds the output `scores` to the graph: the logits of `hidden`, `[batch, labels]`.
    pub(crate) fn output(&self, b: &mut Builder<'_>, hidden: ValueId) -> Result<(), ImportError> {
        let logits = self.logits(b, hidden)?;
        Ok(b.graph.output("scores", logits)?)
    }

    /// The logits of `hidden`, `[batch, labels]`.
    fn logits(&self, b: &mut Builder<'_>, hidden: ValueId) -> Result<ValueId, ImportError> {
        let width = b.width(hidden);
        let first = b.first_position("scores.position", hidden)?;
        let dense = b.linear(&self.dense, first, [width, width], true)?;
        let dense = b.unary("scores.act", self.activation, dense)?;
        b.linear(self.out, dense, [self.labels.len(), width], true)
    }
}

/// The function by which a CrossEncoder of sentence-transformers turns the logits of `folder` into scores.
///
/// Its name is read from config_sentence_transformers.json (since 5.4), or from `sentence_transformers` (since 4.0) or
/// `sbert_ce_default_activation_function` (before) in config.json; otherwise it follows from the number of labels.
/// Errors on any function but the two known: sentence-transformers would run the folder's own code or silently use
/// another function.
pub(crate) fn activation(folder: &Folder, labels: usize) -> Result<ScoreActivation, ImportError> {
    let own = folder.outer_json("config_sentence_transformers.json")?;
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
        }),
    }
}
