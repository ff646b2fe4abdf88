//! Pooling: how the hidden states of all positions become one vector, as weights of a sum.
//!
//! It deliberately knows no graph: the engine gives the weights as an input. Read [`super::ModelInfo::pooling`] for who
//! says which one a model wants.

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
    #[doc(hidden)]
    pub fn weights(self, n: usize) -> Vec<f32> {
        self.weights_from(0, n)
    }

    /// As [`Pooling::weights`], where the first `skipped` positions are left out: what sentence-transformers makes of
    /// `include_prompt: false`. A position keeps its number, and where all are left out, all weights are zero, but for the
    /// first position's under [`Pooling::Cls`].
    #[doc(hidden)]
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
