//! Runs the same tokens through a sharded engine and a single-device one, and compares the outputs position by
//! position.
//!
//! It deliberately knows neither plans nor devices: two engines, one prompt. [`Measure`] defines the error. Read
//! [`crate::generate`] for what an engine does.

use crate::error::Result;
use crate::generate::Engine;
use crate::model::STATES;
use crate::tensor::{Tensor, relative_error};
use serde::Serialize;
use std::fmt;

/// The largest error, as [`Measure`] defines it, that a plan with cut sums may make.
///
/// f32 sums in another order differ by a few units in the last place per layer; 1e-4 is well above what the test
/// models show.
#[doc(hidden)]
pub const TOLERANCE: f64 = 1e-4;

/// What an engine's outputs mean, which decides how the error of a row `a` (sharded) against `b` (single device) is
/// defined. A row holds the outputs of one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[doc(hidden)]
pub enum Measure {
    /// Logits of a token model. The error is the largest difference of a log-probability, divided by the spread of
    /// `b`.
    ///
    /// Adding one number to all logits does not change a log-probability, so a common offset neither counts as an
    /// error nor hides one, as it would in `||a - b|| / ||b||`. The spread is the root mean square of `b` about its
    /// mean. When all logits are nearly equal the spread is nearly 0 and would magnify rounding; the unit is then 1
    /// nat, or the root mean square of `b` if that is less. The unit never exceeds that root mean square, so apart
    /// from a common offset this error is at least `||a - b|| / ||b||`.
    LogProbabilities,
    /// Logits of a classification head. The error is the largest difference of a logit, divided by its own size or by
    /// 1, whichever is more. With several labels, the largest difference of a log-probability, divided by the spread
    /// or by 1 nat, counts too if it is larger.
    ///
    /// One label's large logit does not hide another's error, and a logit near zero is not held to digits that f32
    /// sums do not have.
    Scores,
    /// Hidden states. The error is `||a - b|| / ||b||`.
    HiddenStates,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Measure::LogProbabilities => "log-probabilities",
            Measure::Scores => "scores",
            Measure::HiddenStates => "hidden states",
        })
    }
}

impl Measure {
    /// The error of the row `a` against `b`: infinite when their lengths differ or either holds a NaN or an infinity.
    fn error(self, a: &[f32], b: &[f32]) -> f64 {
        if a.len() != b.len() || a.iter().chain(b).any(|x| !x.is_finite()) {
            return f64::INFINITY;
        }
        match self {
            Measure::LogProbabilities => {
                let (spread, size) = (spread(b), root_mean_square(b.iter().map(|&x| x as f64)));
                in_units(log_probability_error(a, b), spread.max(size.min(1.0)))
            }
            Measure::Scores => {
                let pairs = a.iter().zip(b).map(|(&a, &b)| (a as f64, b as f64));
                let plain = pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
                plain.max(in_units(log_probability_error(a, b), spread(b).max(1.0)))
            }
            Measure::HiddenStates => relative_error(a, b),
        }
    }
}

fn in_units(error: f64, unit: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / unit }
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    (values.map(|x| x * x).sum::<f64>() / n).sqrt()
}

/// The root mean square of `values` about their mean.
fn spread(values: &[f32]) -> f64 {
    let mean = values.iter().map(|&x| x as f64).sum::<f64>() / values.len().max(1) as f64;
    root_mean_square(values.iter().map(|&x| x as f64 - mean))
}

/// The largest difference of a log-probability, in nats. With a single logit, whose probability is 1, it is 0.
fn log_probability_error(a: &[f32], b: &[f32]) -> f64 {
    // The logarithm of the softmax's denominator. The largest logit is subtracted first, so that nothing overflows.
    let normalizer = |row: &[f32]| {
        let max = row.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x as f64));
        max + row.iter().map(|&x| (x as f64 - max).exp()).sum::<f64>().ln()
    };
    let offset = normalizer(a) - normalizer(b);
    let each = a.iter().zip(b).map(|(&a, &b)| (a as f64 - b as f64 - offset).abs());
    each.fold(0.0, f64::max)
}

/// The result of comparing a sharded engine with a single-device one.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Number of positions compared.
    pub positions: usize,
    /// Number of positions of the prompt, fed in two chunks.
    pub prompt: usize,
    /// What the outputs are, which defines the error.
    pub measure: Measure,
    /// The largest error of any position.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
    /// The first position whose most likely token differs, if any.
    pub first_differing_token: Option<usize>,
    /// Whether all outputs compared are equal bit for bit.
    pub bits_equal: bool,
}

impl Comparison {
    /// Whether the error is within the tolerance and no position's most likely token differs.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance && self.first_differing_token.is_none()
    }

    fn compare(&mut self, sharded: &Tensor, single: &Tensor) -> Result<()> {
        let width = single.shape().last().copied().unwrap_or(1).max(1);
        let (a, b) = (sharded.as_f32()?, single.as_f32()?);
        if a.len() != b.len() {
            self.error = f64::INFINITY;
        }
        for (a, b) in a.chunks(width).zip(b.chunks(width)) {
            self.error = self.error.max(self.measure.error(a, b));
            // Only logits have a most likely token.
            let differs = self.measure == Measure::LogProbabilities && argmax(a) != argmax(b);
            if differs && self.first_differing_token.is_none() {
                self.first_differing_token = Some(self.positions);
            }
            self.bits_equal &= a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            self.positions += 1;
        }
        Ok(())
    }
}

/// The index of the largest value; ties go to the lowest.
#[doc(hidden)]
pub fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
}

fn begin(prompt: usize, measure: Measure) -> Comparison {
    let (positions, error, tolerance, first_differing_token, bits_equal) = (0, 0.0, TOLERANCE, None, true);
    Comparison { positions, prompt, measure, error, tolerance, first_differing_token, bits_equal }
}

/// Feeds `prompt` in two chunks and then `steps` tokens to both engines, and compares their logits. The tokens are
/// the single engine's most likely ones.
///
/// Open both engines with `all_logits`, so that every position is compared. Errors when either engine fails.
pub fn verify(
    sharded: &mut Engine,
    single: &mut Engine,
    prompt: &[u32],
    steps: usize,
    mut progress: impl FnMut(usize),
) -> Result<Comparison> {
    let mut comparison = begin(prompt.len(), Measure::LogProbabilities);
    sharded.reset();
    single.reset();
    // Two chunks, so that the second one attends to positions that the KV cache already holds.
    let (first, second) = prompt.split_at(prompt.len().div_ceil(2));
    let mut next = Vec::new();
    for chunk in [first, second].into_iter().filter(|chunk| !chunk.is_empty()) {
        let logits = single.feed(chunk)?;
        comparison.compare(&sharded.feed(chunk)?, &logits)?;
        let width = logits.shape()[1];
        let values = logits.as_f32()?;
        next = vec![argmax(&values[values.len() - width..]) as u32];
        progress(comparison.positions);
    }
    let room = single.limits().capacity.min(sharded.limits().capacity).saturating_sub(prompt.len());
    for _ in 0..steps.min(room) {
        let logits = single.feed(&next)?;
        comparison.compare(&sharded.feed(&next)?, &logits)?;
        next = vec![argmax(logits.as_f32()?) as u32];
        progress(comparison.positions);
    }
    Ok(comparison)
}

/// The error of the hidden states after each layer, on the prompt's first chunk; it shows where two engines begin to
/// differ.
///
/// Both models should have [layer outputs](crate::import::Model::with_layer_outputs); the result is empty otherwise.
#[doc(hidden)]
pub fn verify_layers(sharded: &mut Engine, single: &mut Engine, prompt: &[u32]) -> Result<Vec<f64>> {
    let chunk = &prompt[..prompt.len().min(sharded.limits().seq).min(single.limits().seq)];
    let (a, b) = (sharded.outputs(chunk)?, single.outputs(chunk)?);
    let layers = (0..).map_while(|n| Some((a.get(&format!("layer {n}"))?, b.get(&format!("layer {n}"))?)));
    layers.map(|(a, b)| Ok(relative_error(a.as_f32()?, b.as_f32()?))).collect()
}

/// Compares the hidden states or the scores of `tokens` on both engines, for models that predict no tokens.
///
/// Build a model that pools [with its hidden states](crate::import::Model::with_hidden_states): a pooled vector is a
/// mean over positions and would hide the error of a single one.
#[doc(hidden)]
pub fn verify_embedding(sharded: &mut Engine, single: &mut Engine, tokens: &[u32]) -> Result<Comparison> {
    let scored = sharded.model().info().scores.is_some();
    let mut comparison = begin(tokens.len(), if scored { Measure::Scores } else { Measure::HiddenStates });
    let outcome = |engine: &mut Engine| match scored {
        true => engine.scores(tokens, &[]),
        false => match engine.outputs(tokens)?.remove(STATES) {
            Some(states) => Ok(states),
            None => engine.embed(tokens),
        },
    };
    let (a, b) = (outcome(sharded)?, outcome(single)?);
    comparison.compare(&a, &b)?;
    Ok(comparison)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const LOGITS: Measure = Measure::LogProbabilities;

    fn row(random: &mut Random, n: usize, scale: f32, offset: f32) -> Vec<f32> {
        (0..n).map(|_| random.unit() * scale + offset).collect()
    }

    fn moved(row: &[f32], by: f32) -> Vec<f32> {
        row.iter().map(|x| x + by).collect()
    }

    #[test]
    fn an_offset_of_all_logits_is_no_error_and_hides_none() {
        let b: Vec<f32> = (0..512).map(|i| (i % 7) as f32).collect();
        assert!(LOGITS.error(&moved(&b, 64.0), &b) < 1e-12, "no probability differs");
        let mut a = b.clone();
        a[3] += 0.01;
        for offset in [0.0, 1024.0, -4096.0] {
            let (a, b) = (moved(&a, offset), moved(&b, offset));
            assert!(LOGITS.error(&a, &b) > 10.0 * TOLERANCE, "offset {offset}: {:e}", LOGITS.error(&a, &b));
        }
        // The relative error, in contrast, hides the difference behind the offset.
        assert!(relative_error(&moved(&a, -4096.0), &moved(&b, -4096.0)) < TOLERANCE);
    }

    #[test]
    fn logits_that_are_nearly_equal_are_not_held_to_their_last_bits() {
        let mut random = Random::new(1);
        let b = row(&mut random, 512, 1e-3, 100.0);
        let a: Vec<f32> = b.iter().map(|x| f32::from_bits(x.to_bits() + 1)).collect();
        assert!(LOGITS.error(&a, &b) < TOLERANCE, "{:e}", LOGITS.error(&a, &b));
        assert_eq!(LOGITS.error(&[0.0; 4], &[0.0; 4]), 0.0);
    }

    /// Apart from a common offset, a difference counts for at least as much as the relative error.
    #[test]
    fn a_difference_of_logits_counts_for_at_least_what_it_did() {
        let mut random = Random::new(2);
        for case in 0..200 {
            let (n, scale) = (random.range(2, 300), 10f32.powi(random.range(0, 8) as i32 - 5));
            let (offset, error) = (random.unit() * 10.0, 10f32.powi(-(random.range(1, 6) as i32)));
            let b = row(&mut random, n, scale, if case % 2 == 0 { offset } else { 0.0 });
            let a: Vec<f32> = b.iter().map(|x| x + random.unit() * error * scale).collect();
            let mean = a.iter().zip(&b).map(|(a, b)| *a as f64 - *b as f64).sum::<f64>() / n as f64;
            let (mut difference, mut norm) = (0.0, 0.0);
            for (a, b) in a.iter().zip(&b) {
                difference += (*a as f64 - *b as f64 - mean).powi(2);
                norm += (*b as f64).powi(2);
            }
            let (before, now) = ((difference / norm).sqrt(), LOGITS.error(&a, &b));
            assert!(now >= before * (1.0 - 1e-9), "{n} logits of scale {scale:e}: {now:e} after {before:e}");
        }
    }

    #[test]
    fn scores_are_compared_one_by_one_on_an_absolute_scale() {
        let scores = |a: &[f32], b: &[f32]| Measure::Scores.error(a, b);
        // Near zero, where the relative difference would be large.
        assert!(scores(&[1.1e-6], &[1e-6]) < TOLERANCE && relative_error(&[1.1e-6], &[1e-6]) > 0.09);
        assert!(scores(&[1.1e-6, -1e-6], &[1e-6, -1e-6]) < TOLERANCE);
        assert!(scores(&[0.001], &[0.0]) > TOLERANCE);
        // Beside a large logit, which the relative error would let hide it.
        assert!(scores(&[100.0, 0.009], &[100.0, 0.0]) > TOLERANCE);
        assert!(relative_error(&[100.0, 0.009], &[100.0, 0.0]) < TOLERANCE);
        // Under a common offset the probabilities show the difference.
        assert!(scores(&[4096.0, 4096.25], &[4096.0, 4096.0]) > TOLERANCE);
        // With several labels the logits themselves are the result, so an offset is a difference.
        assert!(scores(&[2.0, 3.0], &[1.0, 2.0]) > TOLERANCE);
        for wrong in [&[f32::NAN][..], &[f32::INFINITY], &[1.0, 1.0]] {
            assert_eq!(scores(wrong, &[1.0]), f64::INFINITY);
        }
    }
}
