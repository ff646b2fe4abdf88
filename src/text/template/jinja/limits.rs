//! What a template may use up: steps, time, memory, depth and output. Every operation asks here before it works.
//!
//! A step is one node of the template or 64 bytes of work, so that no single operation can be large for free. Memory is
//! counted as values are made and given back as they are dropped. It deliberately knows nothing of values: read
//! `value.rs` for those.

use super::fault::{Fault, Result, fault};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Steps for any template; the bytes of the conversation are added. Known templates take some hundreds per message.
const STEPS: u64 = 1 << 20;
/// Bytes of values that a template may hold at one time; a multiple of the conversation's bytes is added.
const MEMORY: usize = 64 << 20;
/// Bytes it may print, to which a multiple of the conversation's bytes is added.
const PRINTED: usize = 1 << 20;
/// A second guard beside the steps, in case a machine is very slow. Steps run out within about a second.
const TIME: Duration = Duration::from_secs(30);
/// Nested evaluations: expressions in expressions, blocks in blocks, macros that call macros.
const DEPTH: u32 = 2000;

/// The counters of one rendering.
pub(super) struct Limits {
    steps: Cell<u64>,
    memory: Cell<usize>,
    depth: Cell<u32>,
    until_clock: Cell<u64>,
    deadline: Instant,
    printed: usize,
}

impl Limits {
    /// For a conversation of `given` bytes.
    pub(super) fn new(given: usize) -> Rc<Self> {
        Rc::new(Limits {
            steps: Cell::new(STEPS.saturating_add((given as u64).saturating_mul(4))),
            memory: Cell::new(MEMORY.saturating_add(given.saturating_mul(16))),
            depth: Cell::new(0),
            until_clock: Cell::new(0),
            deadline: Instant::now() + TIME,
            printed: PRINTED.saturating_add(given.saturating_mul(16)),
        })
    }

    /// Takes `steps`, or fails when they are used up.
    pub(super) fn charge(&self, steps: u64) -> Result<()> {
        let left = self.steps.get().checked_sub(steps).ok_or_else(|| fault(Fault::Steps))?;
        self.steps.set(left);
        match self.until_clock.get().checked_sub(steps) {
            Some(later) => self.until_clock.set(later),
            None => {
                self.until_clock.set(4096);
                if Instant::now() > self.deadline {
                    return Err(fault(Fault::Time));
                }
            }
        }
        Ok(())
    }

    /// Takes the steps for work on `bytes`.
    pub(super) fn charge_bytes(&self, bytes: usize) -> Result<()> {
        self.charge(1 + bytes as u64 / 64)
    }

    /// Counts `bytes` as held until the lease is dropped.
    pub(super) fn lease(self: &Rc<Self>, bytes: usize) -> Result<Lease> {
        let mut lease = Lease { limits: self.clone(), bytes: 0 };
        lease.grow(bytes)?;
        Ok(lease)
    }

    /// Runs `work` one level deeper.
    pub(super) fn deeper<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let depth = self.depth.get();
        if depth >= DEPTH {
            return Err(fault(Fault::Depth));
        }
        self.depth.set(depth + 1);
        let result = work();
        self.depth.set(depth);
        result
    }
}

/// Bytes that a value holds. They are given back when it is dropped.
pub(super) struct Lease {
    limits: Rc<Limits>,
    bytes: usize,
}

impl Lease {
    fn grow(&mut self, bytes: usize) -> Result<()> {
        let left = self.limits.memory.get().checked_sub(bytes).ok_or_else(|| fault(Fault::Memory))?;
        self.limits.memory.set(left);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.limits.memory.set(self.limits.memory.get() + self.bytes);
    }
}

/// A text while it grows: each addition is counted before it is made.
pub(super) struct Buffer {
    text: String,
    lease: Lease,
}

impl Buffer {
    pub(super) fn new(limits: &Rc<Limits>) -> Self {
        Buffer { text: String::new(), lease: Lease { limits: limits.clone(), bytes: 0 } }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        self.lease.limits.charge_bytes(text.len())?;
        if text.len() > self.lease.limits.printed - self.text.len() {
            return Err(fault(Fault::Printed));
        }
        self.lease.grow(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn push_char(&mut self, c: char) -> Result<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    /// Adds `text` as often as `times` says. What does not fit is refused before it is made.
    pub(super) fn repeat(&mut self, text: &str, times: usize) -> Result<()> {
        let bytes = text.len().checked_mul(times).ok_or_else(|| fault(Fault::Printed))?;
        if bytes > self.lease.limits.printed - self.text.len() {
            return Err(fault(Fault::Printed));
        }
        self.lease.limits.charge_bytes(bytes)?;
        self.lease.grow(bytes)?;
        self.text.extend(std::iter::repeat_n(text, times));
        Ok(())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn into_parts(self) -> (String, Lease) {
        (self.text, self.lease)
    }
}
