//! The limits of a template: steps, time, memory, depth and output. Every operation checks them before it works.
//!
//! A step is one node of the template or 64 bytes of work, so that no single operation can be large and cheap. Memory
//! is counted when a value is made and returned when it is dropped. The module deliberately knows nothing of values.
//! Read `value/mod.rs` for those.

use super::fault::{Fault, Result, fault};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The steps allowed for any template; four more are allowed per byte of the conversation. Known templates take a few
/// hundred steps per message.
const STEPS: u64 = 1 << 20;
/// The bytes of values that a template may hold at a time; 16 times the conversation's bytes are added.
const MEMORY: usize = 64 << 20;
/// The bytes that a template may print; 16 times the conversation's bytes are added.
const PRINTED: usize = 1 << 20;
/// The time allowed. Steps normally run out within about a second; this limit is a second guard, for slow machines.
const TIME: Duration = Duration::from_secs(30);
/// The deepest nesting of evaluations: expressions in expressions, blocks in blocks, macros that call macros.
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
    /// The limits for a conversation of `given` bytes.
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

    /// Takes `steps`, and fails if fewer remain.
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

    /// Runs `work` one level of nesting deeper.
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

/// The bytes that a value holds. They are returned when it is dropped.
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

/// A string under construction. Each addition is counted before it is made.
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

    /// Appends `text` `times` times. An addition beyond the limits is refused before it is made.
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
