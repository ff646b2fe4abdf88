//! What encoding or decoding a text may cost: growth and time, in proportion to the text.
//!
//! A tokenizer.json is a small program of a stranger: fifty replacements of "a" by "aa" in a row make 2^50 letters of
//! one, and a pattern can look at the text as often as it likes. Everything that runs such a program asks a [`Budget`]
//! between its steps. It deliberately knows no step; `file.rs` limits what a single one can do.

use std::time::{Duration, Instant};

/// Bytes that a text may become per byte of it. Unicode's worst letter (U+FDFA under NFKC) becomes 11 times as long,
/// and spelling the result byte by byte, as GPT-2 does, doubles it.
const GROWTH: usize = 32;
/// Bytes that any text may become, so that short ones can get a prefix and the like.
const ROOM: usize = 64 << 10;
/// Time that any text may take, and the time per byte on top: a hundredth of the speed of an ordinary tokenizer.
const TIME: Duration = Duration::from_secs(10);
const TIME_PER_BYTE: Duration = Duration::from_micros(50);
/// The most that counts between two looks at the clock. A process that was stopped for a minute has not computed for
/// one.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// What is left of the growth and the time that a text may take.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    left: usize,
    time: Duration,
    last: Instant,
}

impl Budget {
    /// The budget of a text of `bytes` bytes.
    pub fn of(bytes: usize) -> Budget {
        let time = TIME + TIME_PER_BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        Budget { bytes, left: bytes.saturating_mul(GROWTH).saturating_add(ROOM), time, last: Instant::now() }
    }

    /// Errors when the time is over.
    pub fn tick(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let step = now.saturating_duration_since(self.last).min(LONGEST_STEP);
        self.last = now;
        self.time = self.time.saturating_sub(step);
        if self.time.is_zero() { Err(format!("takes too long on a text of {} bytes", self.bytes)) } else { Ok(()) }
    }

    /// Errors when a text has become `bytes` long and that is too much.
    pub fn check(&mut self, bytes: usize) -> Result<(), String> {
        if bytes > self.left {
            return Err(format!("makes more than {} bytes of a text of {}", self.left, self.bytes));
        }
        self.tick()
    }

    /// As [`Budget::check`], of a part of the text: the other parts have what is left.
    pub fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.check(bytes)?;
        self.left -= bytes;
        Ok(())
    }

    /// Bytes that may still be made.
    pub fn left(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_grow_and_take_time_in_proportion() {
        let mut budget = Budget::of(1000);
        assert!(budget.check(90_000).is_ok() && budget.check(100_000).is_err());
        budget.take(90_000).unwrap();
        assert!(budget.check(90_000).is_err());
        budget.time = Duration::from_nanos(1);
        assert_eq!(budget.tick(), Err("takes too long on a text of 1000 bytes".to_string()));
        assert!(Budget::of(usize::MAX).left() > 0);
    }

    #[test]
    fn a_process_that_was_stopped_has_computed_for_a_second_at_most() {
        let mut budget = Budget::of(0);
        let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(60)) else { return };
        budget.last = long_ago;
        assert!(budget.tick().is_ok());
        assert!(budget.time >= TIME - LONGEST_STEP);
    }
}
