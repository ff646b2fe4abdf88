//! Pooling: how the hidden states of all positions become one vector, expressed as the weights of a sum.
//!
//! It deliberately knows no graph: the engine passes the weights as an input. Read [`super::ModelInfo::pooling`] for
//! where a model's pooling comes from.

/// How the hidden states of a text's positions become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all positions.
    Mean,
    /// The first position.
    Cls,
    /// The last position.
    Last,
    /// The sum of all positions, divided by the square root of their number.
    MeanSqrt,
    /// The mean in which each position is weighted by its number, counted from 1.
    WeightedMean,
    /// No pooling: one vector per position.
    #[default]
    None,
}

impl Pooling {
    /// The weight of each of `n` positions in the sum.
    #[doc(hidden)]
    pub fn weights(self, n: usize) -> Vec<f32> {
        self.weights_from(0, n)
    }

    /// As [`Pooling::weights`], with the first `skipped` positions left out. sentence-transformers does so where
    /// `include_prompt` is false. A position keeps its number. If all positions are left out, all weights are zero,
    /// except for that of the first position under [`Pooling::Cls`].
    #[doc(hidden)]
    pub fn weights_from(self, skipped: usize, n: usize) -> Vec<f32> {
        let skipped = skipped.min(n);
        let counted = n - skipped;
        // The sum of the numbers, counted from 1, of the positions that are not left out.
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
