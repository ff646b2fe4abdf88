//! Limits on the cost of encoding or decoding a text: how much it may grow and how long it may take, in proportion to
//! its length.
//!
//! A tokenizer.json is in effect a small program by an untrusted author: fifty replacements of "a" by "aa" in a row
//! turn one letter into 2^50, and a pattern can scan the text any number of times. Code that runs such a program
//! checks a [`Budget`] between its steps. The module deliberately knows no step; `file.rs` limits what a single step
//! can do.

use std::time::{Duration, Instant};

/// The most bytes that a text may grow to, per byte. Unicode's worst letter (U+FDFA under NFKC) becomes 11 times as
/// long, and GPT-2's spelling of bytes doubles that.
const GROWTH: usize = 32;
/// Bytes that are allowed for any text in addition, so that a short one can be given a prefix and the like.
const ROOM: usize = 64 << 10;
/// The time allowed for any text, and additional time per byte: 100 times as long as an ordinary tokenizer takes.
const TIME: Duration = Duration::from_secs(10);
const TIME_PER_BYTE: Duration = Duration::from_micros(50);
/// The most time that counts between two looks at the clock, so that a process that was suspended for a minute is not
/// charged for it.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// The growth and the time that remain for a text.
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

    /// Errors when the time is used up.
    pub fn tick(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let step = now.saturating_duration_since(self.last).min(LONGEST_STEP);
        self.last = now;
        self.time = self.time.saturating_sub(step);
        if self.time.is_zero() { Err(format!("takes too long on a text of {} bytes", self.bytes)) } else { Ok(()) }
    }

    /// Errors when a text has grown to more bytes than allowed; `bytes` is its length now.
    pub fn check(&mut self, bytes: usize) -> Result<(), String> {
        if bytes > self.left {
            return Err(format!("makes more than {} bytes of a text of {}", self.left, self.bytes));
        }
        self.tick()
    }

    /// As [`Budget::check`], for one part of the text. The growth that it leaves is available to the other parts.
    pub fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.check(bytes)?;
        self.left -= bytes;
        Ok(())
    }

    /// The number of bytes that may still be produced.
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
