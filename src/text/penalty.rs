//! Penalties on tokens that have already occurred: repetition, presence and frequency.
//!
//! It deliberately knows no vocabulary and keeps no history: [`Sampler`](super::Sampler) passes the tokens so far.
//! Read `sampling.rs` next; penalties are its first step.

use std::collections::{HashMap, VecDeque};

/// How much less likely a token becomes because it is among the last tokens.
///
/// As in llama.cpp: for a token that occurred `n` times, a logit above 0 is divided by `repeat` and one below 0 is
/// multiplied by it; then `n * frequency + presence` is subtracted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides the logits of tokens that occurred; 1 changes nothing.
    pub repeat: f32,
    /// Subtracted once for a token that occurred; 0 changes nothing.
    pub presence: f32,
    /// Subtracted for each occurrence of a token; 0 changes nothing.
    pub frequency: f32,
    /// How many of the last tokens count, the prompt's included.
    pub last: usize,
}

impl Penalties {
    /// Penalties that change nothing.
    #[doc(hidden)]
    pub const NONE: Penalties = Penalties { repeat: 1.0, presence: 0.0, frequency: 0.0, last: 64 };

    fn none(&self) -> bool {
        (self.repeat, self.presence, self.frequency) == (1.0, 0.0, 0.0)
    }

    /// How many of the last tokens have to be remembered.
    pub(super) fn reach(&self) -> usize {
        if self.none() { 0 } else { self.last }
    }

    /// Fills `out` with the penalised `logits` and returns true. Returns false and does nothing if the penalties
    /// change no logit.
    pub(super) fn apply(&self, recent: &VecDeque<u32>, logits: &[f32], out: &mut Vec<f32>) -> bool {
        if recent.is_empty() || self.none() {
            return false;
        }
        out.clear();
        out.extend_from_slice(logits);
        let mut counts: HashMap<u32, u32> = HashMap::new();
        recent.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
        for (token, count) in counts {
            let Some(logit) = out.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / self.repeat } else { *logit * self.repeat };
            *logit -= count as f32 * self.frequency + self.presence;
        }
        true
    }
}

impl Default for Penalties {
    fn default() -> Self {
        Penalties::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(penalties: Penalties, recent: &[u32], logits: &[f32]) -> Vec<f32> {
        let mut out = vec![9.0];
        match penalties.apply(&recent.iter().copied().collect(), logits, &mut out) {
            true => out,
            false => logits.to_vec(),
        }
    }

    #[test]
    fn each_penalty_does_what_it_says() {
        let logits = [4.0, -4.0, 0.0, 1.0];
        let repeat = Penalties { repeat: 2.0, ..Penalties::NONE };
        assert_eq!(penalised(repeat, &[0, 1, 1, 2], &logits), [2.0, -8.0, 0.0, 1.0]);
        let counted = Penalties { presence: 0.5, frequency: 0.25, ..Penalties::NONE };
        assert_eq!(penalised(counted, &[0, 1, 1], &logits), [3.25, -5.0, 0.0, 1.0]);
        assert_eq!(penalised(Penalties::NONE, &[0, 1], &logits), logits);
        assert_eq!(penalised(repeat, &[], &logits), logits);
        // A logit of -infinity rules a token out, and stays -infinity.
        let out = penalised(repeat, &[0], &[f32::NEG_INFINITY, 1.0]);
        assert_eq!(out, [f32::NEG_INFINITY, 1.0]);
    }
}
