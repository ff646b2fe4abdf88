//! How long calls take once their kernels are compiled.
//!
//! The first call of a shape compiles kernels and allocates memory, which on a software driver may take longer than all later
//! calls together, so only later calls of that shape are counted. Nothing here knows an engine: read
//! [`Engine::pace`](super::Engine::pace) for who counts.

use std::collections::HashSet;
use std::time::Duration;

/// The time that calls took, the first call of each shape left out.
#[derive(Clone, Debug, Default)]
#[doc(hidden)]
#[non_exhaustive]
pub struct Pace {
    /// Calls of several tokens per sequence.
    pub prefill: Rate,
    /// Calls of one token per sequence.
    pub decode: Rate,
    /// The shapes called so far: sequences, tokens per sequence, positions whose logits are returned.
    shapes: HashSet<[usize; 3]>,
}

/// Calls of one kind, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
#[non_exhaustive]
pub struct Rate {
    /// How many calls.
    pub calls: usize,
    /// Sequences in these calls.
    pub sequences: usize,
    /// Tokens in these calls, without padding.
    pub tokens: usize,
    /// The time that the calls took.
    pub time: Duration,
}

impl Pace {
    /// Counts a call of `tokens` tokens without padding, unless it is the first of its `shape`.
    pub(super) fn note(&mut self, shape: [usize; 3], tokens: usize, time: Duration) {
        if self.shapes.insert(shape) {
            return;
        }
        let [sequences, length, _] = shape;
        let rate = if length > 1 { &mut self.prefill } else { &mut self.decode };
        rate.calls += 1;
        rate.sequences += sequences;
        rate.tokens += tokens;
        rate.time += time;
    }
}

impl Rate {
    /// Tokens per second; `None` for fewer than two calls.
    #[doc(hidden)]
    pub fn tokens_per_second(&self) -> Option<f64> {
        self.per_second(self.tokens)
    }

    /// Sequences per second; `None` for fewer than two calls.
    #[doc(hidden)]
    pub fn sequences_per_second(&self) -> Option<f64> {
        self.per_second(self.sequences)
    }

    /// Both kinds of calls together.
    #[doc(hidden)]
    pub fn and(self, other: Rate) -> Rate {
        Rate {
            calls: self.calls + other.calls,
            sequences: self.sequences + other.sequences,
            tokens: self.tokens + other.tokens,
            time: self.time + other.time,
        }
    }

    fn per_second(&self, n: usize) -> Option<f64> {
        (self.calls >= 2 && !self.time.is_zero()).then(|| n as f64 / self.time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_of_a_shape_is_left_out_and_one_call_is_no_rate() {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        // The first call takes a minute, which is in no rate.
        pace.note([1, 256, 1], 256, second * 60);
        pace.note([1, 256, 1], 256, second);
        pace.note([1, 44, 1], 44, second * 60);
        assert_eq!((pace.prefill.tokens, pace.prefill.tokens_per_second()), (256, None));
        pace.note([1, 256, 1], 256, second);
        assert_eq!(pace.prefill.tokens_per_second(), Some(256.0));
        for time in [60, 1, 3] {
            pace.note([2, 1, 1], 2, second * time);
        }
        assert_eq!((pace.decode.tokens_per_second(), pace.decode.sequences_per_second()), (Some(1.0), Some(1.0)));
        assert_eq!(pace.prefill.and(pace.decode).calls, 4);
    }
}
