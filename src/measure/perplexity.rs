//! Measures how well a model predicts a text: the loss of every token, given the tokens before it in its window.
//!
//! It deliberately knows no text: token ids in, nats out. Logits are turned into losses chunk by chunk, so that the
//! logits of a whole file are never in memory. Read [`crate::generate`] for what an engine does.

use crate::error::Result;
use crate::generate::GenerateError;

use crate::session::SessionError;

use crate::generate::Engine;
use crate::text::TextError;
use serde::Serialize;
use std::ops::Range;

/// The losses of a text: so far while it is measured, or in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[doc(hidden)]
pub struct Perplexity {
    /// Number of tokens scored.
    pub tokens: usize,
    /// The windows in which they were scored.
    pub windows: Vec<Window>,
    /// The sum of the losses, and of their squares.
    #[serde(skip)]
    sums: (f64, f64),
}

/// The loss of one window of a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[doc(hidden)]
pub struct Window {
    /// The index of its first token in the text.
    pub start: usize,
    /// Number of tokens scored in it.
    pub tokens: usize,
    /// The mean loss of these tokens, in nats.
    pub nats_per_token: f64,
}

impl Perplexity {
    /// The mean loss of a token, in nats.
    #[doc(hidden)]
    pub fn nats_per_token(&self) -> f64 {
        self.sums.0 / self.tokens as f64
    }

    /// The standard error of [`Perplexity::nats_per_token`], as if the losses of tokens were independent.
    #[doc(hidden)]
    pub fn standard_error(&self) -> f64 {
        let (n, mean) = (self.tokens as f64, self.nats_per_token());
        ((self.sums.1 / n - mean * mean).max(0.0) / (n - 1.0).max(1.0)).sqrt()
    }

    /// e to the power of the mean loss: a model that always chose among this many equally likely tokens would have
    /// the same loss.
    #[doc(hidden)]
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }
}

/// The windows of a text of `tokens` tokens: the range of each, and the first of its tokens that is scored.
///
/// Windows begin `stride` tokens apart and are `window` long; the last may be shorter. A token is scored once, in the
/// first window that contains it. The first token of a window has no context, so it is not scored there.
#[doc(hidden)]
pub fn windows(tokens: usize, window: usize, stride: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let stride = stride.max(1);
    let range = move |n: usize| {
        let start = n.checked_mul(stride)?;
        Some(start..start.saturating_add(window).min(tokens))
    };
    // A window that ends where the one before it ended has no new token: skip it.
    let ended = move |n: usize| n.checked_sub(1).and_then(range).map_or(0, |before| before.end);
    (0..)
        .map_while(move |n| range(n).filter(|_| n == 0 || ended(n) < tokens).map(|range| (ended(n), range)))
        .map(|(ended, range)| (range.clone(), ended.max(range.start + 1)))
        .filter(|(range, first)| *first < range.end)
}

/// Scores `tokens` in [`windows`] of `window` tokens, `stride` apart.
///
/// The engine must have been opened with `all_logits`. `progress` is called with the result so far after every
/// window. Errors when there is no token to score, when the window is longer than the engine's context, and when the
/// engine fails.
pub fn perplexity(
    engine: &mut Engine,
    tokens: &[u32],
    window: usize,
    stride: usize,
    mut progress: impl FnMut(&Perplexity),
) -> Result<Perplexity> {
    let mut found = Perplexity::default();
    for (range, first) in windows(tokens.len(), window, stride) {
        engine.reset();
        let before = found.sums.0;
        let mut at = range.start;
        for chunk in tokens[range.clone()].chunks(engine.limits().seq) {
            let logits = engine.feed(chunk)?;
            let &[rows, width] = logits.shape() else { return Err(rows_missing(engine)) };
            if rows != chunk.len() {
                return Err(rows_missing(engine));
            }
            // A position's logits predict the next token.
            for row in logits.as_f32()?.chunks(width) {
                at += 1;
                if at >= first && at < range.end {
                    let loss = loss(row, tokens[at])?;
                    found.sums.0 += loss;
                    found.sums.1 += loss * loss;
                }
            }
        }
        let scored = range.end - first;
        found.tokens += scored;
        let nats_per_token = (found.sums.0 - before) / scored as f64;
        found.windows.push(Window { start: range.start, tokens: scored, nats_per_token });
        progress(&found);
    }
    if found.tokens == 0 {
        let reason = format!("{} tokens in windows of {window}: there is none with another before it", tokens.len());
        return Err(SessionError::Input { name: "text".into(), reason }.into());
    }
    Ok(found)
}

fn rows_missing(engine: &Engine) -> crate::Error {
    let model = engine.model().path().display().to_string();
    GenerateError::Model { model, reason: "was opened for the logits of the last position only".into() }.into()
}

/// `-log softmax(logits)[token]` in nats.
fn loss(logits: &[f32], token: u32) -> Result<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - f64::from(largest)).exp()).sum();
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let loss = sum.ln() + f64::from(largest) - f64::from(own);
    if loss.is_nan() { Err(TextError::Logits("one is NaN or infinite").into()) } else { Ok(loss) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(tokens: usize, window: usize, stride: usize) -> Vec<(Range<usize>, usize)> {
        windows(tokens, window, stride).collect()
    }

    #[test]
    fn windows_without_overlap_score_all_but_their_first_token() {
        assert_eq!(all(10, 4, 4), [(0..4, 1), (4..8, 5), (8..10, 9)]);
        // A last window of one token would have nothing to score and is left out.
        assert_eq!(all(9, 4, 4), [(0..4, 1), (4..8, 5)]);
        assert_eq!(all(8, 4, 4), [(0..4, 1), (4..8, 5)]);
        assert_eq!(all(1, 4, 4), []);
        assert_eq!(all(0, 4, 4), []);
        assert_eq!(all(5, 1, 1), []);
    }

    #[test]
    fn windows_that_overlap_score_what_is_new() {
        assert_eq!(all(10, 4, 2), [(0..4, 1), (2..6, 4), (4..8, 6), (6..10, 8)]);
        assert_eq!(all(5, 4, 3), [(0..4, 1), (3..5, 4)]);
    }

    proptest! {
        #[test]
        fn every_token_is_scored_once_and_never_first(tokens in 0usize..200, window in 1usize..40, back in 0usize..40) {
            let stride = window.saturating_sub(back).max(1);
            let mut scored = vec![0; tokens];
            for (range, first) in windows(tokens, window, stride) {
                prop_assert!(range.len() <= window && first > range.start);
                scored[first..range.end].iter_mut().for_each(|n| *n += 1);
            }
            for (at, times) in scored.into_iter().enumerate() {
                let first_of_its_window = at == 0 || (stride == window && at % window == 0);
                prop_assert_eq!(times, usize::from(!first_of_its_window));
            }
        }
    }

    #[test]
    fn the_loss_is_minus_the_logarithm_of_the_probability() {
        let logits = [1.0f32, 3.0, 2.0, f32::NEG_INFINITY];
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for token in 0..3 {
            let wanted = -(f64::from(logits[token]).exp() / sum).ln();
            assert!((loss(&logits, token as u32).unwrap() - wanted).abs() < 1e-12);
        }
        assert_eq!(loss(&logits, 3).unwrap(), f64::INFINITY);
        assert!((loss(&[1000.0, 0.0], 1).unwrap() - 1000.0).abs() < 1e-9);
        assert!(loss(&[f32::NAN, 0.0], 1).is_err() && loss(&[f32::INFINITY, 0.0], 1).is_err());
    }

    #[test]
    fn the_standard_error_is_of_the_mean() {
        let losses = [1.0, 2.0, 4.0, 5.0];
        let sums = (losses.iter().sum(), losses.iter().map(|x| x * x).sum());
        let found = Perplexity { tokens: 4, windows: vec![], sums };
        assert_eq!((found.nats_per_token(), found.perplexity()), (3.0, 3f64.exp()));
        // The variance is 2.5, over 3 tokens.
        assert!((found.standard_error() - (2.5f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
