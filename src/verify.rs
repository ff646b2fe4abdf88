//! The proof: the same tokens through a sharded engine and a single one, compared position by position.
//!
//! It deliberately knows neither plans nor devices: two engines, one prompt. Read [`crate::generate`] for what an
//! engine does.

use crate::error::Result;
use crate::generate::Engine;
use crate::import::STATES;
use crate::tensor::{Tensor, relative_error};
use serde::Serialize;

/// The documented tolerance of `bounded`: `||a - b|| / ||b||` over the logits of a position.
///
/// f32 sums in another order differ by a few ulp per layer; 1e-4 is two orders above what is measured on the fixtures.
pub const TOLERANCE: f64 = 1e-4;

/// What a comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Positions compared.
    pub positions: usize,
    /// Positions of the prompt, fed in two chunks.
    pub prompt: usize,
    /// The largest error of a position.
    pub error: f64,
    /// What it may be.
    pub tolerance: f64,
    /// The first position whose most likely token differs, if any.
    pub first_differing_token: Option<usize>,
    /// Whether every logit has the same bits.
    pub bits_equal: bool,
}

impl Comparison {
    /// Whether the two agree: the error is within the tolerance, and no token differs.
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
            self.error = self.error.max(relative_error(a, b));
            let same = argmax(a) == argmax(b);
            if !same && self.first_differing_token.is_none() {
                self.first_differing_token = Some(self.positions);
            }
            self.bits_equal &= a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            self.positions += 1;
        }
        Ok(())
    }
}

/// The index of the largest value; ties go to the lowest.
pub fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
}

fn begin(prompt: usize) -> Comparison {
    Comparison { positions: 0, prompt, error: 0.0, tolerance: TOLERANCE, first_differing_token: None, bits_equal: true }
}

/// Feeds `prompt` in two chunks and then `steps` tokens, the single engine's own choices, to both.
///
/// Both engines should be opened with `all_logits`, so that every position is compared. Errors when either fails.
pub fn verify(
    sharded: &mut Engine,
    single: &mut Engine,
    prompt: &[u32],
    steps: usize,
    mut progress: impl FnMut(usize),
) -> Result<Comparison> {
    let mut comparison = begin(prompt.len());
    sharded.reset();
    single.reset();
    // Uneven on purpose: the second chunk starts where no kernel's block does.
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

/// The error of the hidden states after each layer, on the prompt's first chunk: where two engines begin to differ.
///
/// Both models should have [layer outputs](crate::import::Model::with_layer_outputs); others have none to compare.
pub fn verify_layers(sharded: &mut Engine, single: &mut Engine, prompt: &[u32]) -> Result<Vec<f64>> {
    let chunk = &prompt[..prompt.len().min(sharded.limits().seq).min(single.limits().seq)];
    let (a, b) = (sharded.outputs(chunk)?, single.outputs(chunk)?);
    let layers = (0..).map_while(|n| Some((a.get(&format!("layer {n}"))?, b.get(&format!("layer {n}"))?)));
    layers.map(|(a, b)| Ok(relative_error(a.as_f32()?, b.as_f32()?))).collect()
}

/// Compares the hidden states or the scores of `tokens` on both engines, for models that predict no tokens.
///
/// Of a model that pools, both should have [its hidden states](crate::import::Model::with_hidden_states): a pooled vector
/// is a mean over positions, in which the error of one of them is lost.
pub fn verify_embedding(sharded: &mut Engine, single: &mut Engine, tokens: &[u32]) -> Result<Comparison> {
    let mut comparison = begin(tokens.len());
    let outcome = |engine: &mut Engine| match engine.model().info().scores {
        Some(_) => engine.scores(tokens, &[]),
        None => match engine.outputs(tokens)?.remove(STATES) {
            Some(states) => Ok(states),
            None => engine.embed(tokens),
        },
    };
    let (a, b) = (outcome(sharded)?, outcome(single)?);
    comparison.compare(&a, &b)?;
    // Hidden states are no scores: their largest component is no token.
    comparison.first_differing_token = None;
    Ok(comparison)
}
