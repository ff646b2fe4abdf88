//! The meaning of a classification head's logits: how many labels there are, and which function turns logits into
//! scores.
//!
//! It deliberately knows no file: the import reads the settings. Read [`super::ModelInfo::scores`] for where they are
//! kept.

/// How a cross-encoder's logits become its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum ScoreActivation {
    /// The logits are the scores.
    Identity,
    /// `1 / (1 + e^-x)` of each logit by itself: scores between 0 and 1.
    Sigmoid,
}

/// The scores that a classification head gives a text or a pair of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Scores {
    /// The number of scores; a reranker has one.
    pub labels: usize,
    /// The function that a sentence-transformers CrossEncoder applies. The graph's output `scores` holds its
    /// arguments.
    pub activation: ScoreActivation,
    /// The function that transformers' text-classification pipeline applies.
    pub probability: Probability,
}

/// How a classifier's logits become statements about its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Probability {
    /// Exactly one of the labels is right: `e^x` over the sum of all (softmax).
    Softmax,
    /// Each label is right or not, independently: `1 / (1 + e^-x)`.
    Sigmoid,
    /// The logits are measures and not probabilities; they are left as they are.
    Identity,
}

impl Probability {
    /// The value for each label, computed in f64.
    pub fn apply(self, logits: &[f32]) -> Vec<f64> {
        let each = logits.iter().map(|&x| x as f64);
        match self {
            Probability::Identity => each.collect(),
            Probability::Sigmoid => each.map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Probability::Softmax => {
                let max = each.clone().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = each.map(|x| (x - max).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            }
        }
    }
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
