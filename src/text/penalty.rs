//! What tokens lose that were there before: repetition, presence and frequency penalties.
//!
//! It deliberately knows no vocabulary and keeps no history of its own; [`Sampler`](super::Sampler) hands it the tokens
//! so far. Read `sampling.rs` next: this is its first step.

use std::collections::{HashMap, VecDeque};

/// How much less likely a token is that is among the last ones.
///
/// As llama.cpp counts: of a token that is there `n` times, a logit above 0 is divided by `repeat` and one below is
/// multiplied; then `n * frequency + presence` is taken off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides the logits of tokens that were there; 1 changes nothing.
    pub repeat: f32,
    /// Taken off once for a token that was there; 0 changes nothing.
    pub presence: f32,
    /// Taken off for each time a token was there; 0 changes nothing.
    pub frequency: f32,
    /// How many tokens back are looked at, those of the prompt included.
    pub last: usize,
}

impl Penalties {
    /// None at all.
    #[doc(hidden)]
    pub const NONE: Penalties = Penalties { repeat: 1.0, presence: 0.0, frequency: 0.0, last: 64 };

    fn none(&self) -> bool {
        (self.repeat, self.presence, self.frequency) == (1.0, 0.0, 0.0)
    }

    /// How many tokens need to be remembered.
    pub(super) fn reach(&self) -> usize {
        if self.none() { 0 } else { self.last }
    }

    /// Fills `out` with the penalised `logits`; false, and nothing done, where they are the logits themselves.
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
        // A logit that rules a token out goes on ruling it out.
        let out = penalised(repeat, &[0], &[f32::NEG_INFINITY, 1.0]);
        assert_eq!(out, [f32::NEG_INFINITY, 1.0]);
    }
}
