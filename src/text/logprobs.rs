//! Log-probabilities of a token and of its most likely alternatives.
//!
//! They belong to the model's own distribution, before penalties, filters and temperature, as OpenAI and vLLM report
//! them. The module deliberately knows nothing of how the token was chosen. Read [`Scores::of`].

/// The log-probabilities of a token and of its alternatives.
#[derive(Debug, Clone, PartialEq)]
#[doc(hidden)]
pub struct Scores {
    /// The log-probability of the token itself.
    pub logprob: f32,
    /// The most likely tokens with their log-probabilities, the most likely first; of equal ones the lower id first.
    pub top: Vec<(u32, f32)>,
}

impl Scores {
    /// Scores `token` and the `max` most likely tokens under `logits`.
    ///
    /// A token beyond the end of the logits has the log-probability -infinity.
    #[doc(hidden)]
    pub fn of(logits: &[f32], token: u32, max: usize) -> Scores {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(largest)).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit) - f64::from(largest) - total.ln()) as f32;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let max = max.min(order.len());
        if 0 < max && max < order.len() {
            order.select_nth_unstable_by(max - 1, likelier);
        }
        order.truncate(max);
        order.sort_unstable_by(likelier);
        Scores {
            logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit)),
            top: order.into_iter().map(|token| (token, logprob(logits[token as usize]))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_log_softmax() {
        // The weights of the four tokens are 1, 2, 4 and 1.
        let logits = [0.0, 2f32.ln(), 4f32.ln(), 0.0];
        let scores = Scores::of(&logits, 1, 3);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        near(scores.logprob, 0.25f32.ln());
        assert_eq!(scores.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 1, 0]);
        near(scores.top[0].1, 0.5f32.ln());
        near(scores.top[2].1, 0.125f32.ln());
        assert_eq!(Scores::of(&logits, 9, 0), Scores { logprob: f32::NEG_INFINITY, top: Vec::new() });
        assert_eq!(Scores::of(&logits, 0, 99).top.len(), 4);
        assert_eq!(Scores::of(&[f32::NEG_INFINITY, 3e38], 1, 1), Scores { logprob: 0.0, top: vec![(1, 0.0)] });
    }
}
