//! What a classification head's logits mean: how many labels there are, and which function makes scores of the logits.
//!
//! It deliberately knows no file: the import reads the settings. Read [`super::ModelInfo::scores`] for where they stand.

/// How a cross-encoder's logits become its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum ScoreActivation {
    /// They are its scores.
    Identity,
    /// `1 / (1 + e^-x)`, each by itself: scores between 0 and 1.
    Sigmoid,
}

/// The scores that a classification head makes of a text or a pair of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Scores {
    /// How many: one for a reranker.
    pub labels: usize,
    /// What a sentence-transformers CrossEncoder makes of them. The graph's output `scores` is before it.
    pub activation: ScoreActivation,
    /// What transformers' text-classification pipeline makes of them.
    pub probability: Probability,
}

/// How a classifier's logits become what it says of its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Probability {
    /// One of the labels is right: `e^x` over the sum of all.
    Softmax,
    /// Each label is right or not by itself: `1 / (1 + e^-x)`.
    Sigmoid,
    /// They are measures and no probabilities: as they are.
    Identity,
}

impl Probability {
    /// What is said of each label, computed in f64.
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
