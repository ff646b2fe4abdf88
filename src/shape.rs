//! Symbolic shapes: dimensions that the model fixes, dimensions that differ from call to call, and their values in a
//! call.
//!
//! This module deliberately knows nothing of elements, devices or how a shape is divided over ranks. Read
//! [`crate::tensor`] next for what has a shape.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A size that is known only when a session opens or a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbol {
    /// Sequences in the call.
    Batch,
    /// New tokens per sequence in the call.
    Seq,
    /// How many of the last positions get logits.
    Keep,
    /// Positions that the state can hold. Fixed when a session opens.
    Capacity,
}

/// One dimension: a number, or a symbol that an [`Env`] resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// A length that the model fixes.
    Fixed(usize),
    /// A length that each call sets.
    Symbol(Symbol),
}

impl Dim {
    /// The size under `env`.
    #[doc(hidden)]
    pub fn resolve(self, env: &Env) -> usize {
        match self {
            Dim::Fixed(n) => n,
            Dim::Symbol(Symbol::Batch) => env.batch,
            Dim::Symbol(Symbol::Seq) => env.seq,
            Dim::Symbol(Symbol::Keep) => env.keep,
            Dim::Symbol(Symbol::Capacity) => env.capacity,
        }
    }

    /// The size, if it does not depend on the call.
    #[doc(hidden)]
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(n),
            Dim::Symbol(_) => None,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Fixed(n)
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Dim {
        Dim::Symbol(symbol)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => n.fmt(f),
            Dim::Symbol(Symbol::Batch) => f.pad("batch"),
            Dim::Symbol(Symbol::Seq) => f.pad("seq"),
            Dim::Symbol(Symbol::Keep) => f.pad("keep"),
            Dim::Symbol(Symbol::Capacity) => f.pad("capacity"),
        }
    }
}

/// The values of the symbols in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Env {
    /// Sequences.
    pub batch: usize,
    /// New tokens per sequence.
    pub seq: usize,
    /// How many of the last positions get logits, `1..=seq`.
    pub keep: usize,
    /// Positions already in the state.
    pub past: usize,
    /// Positions the state can hold.
    pub capacity: usize,
}

impl Env {
    /// A call with one sequence of `seq` tokens and no past. All logits are kept, and the state holds exactly these
    /// tokens.
    pub fn prompt(seq: usize) -> Env {
        Env { batch: 1, seq, keep: seq, past: 0, capacity: seq }
    }
}

/// The largest call of a session: the largest value of each symbol, and the largest number of new tokens of all
/// sequences together.
///
/// Memory is allocated for this many tokens, so that a session can take either many short sequences or a few long
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The largest value of each symbol.
    pub each: Env,
    /// The largest number of sequences times new tokens per sequence.
    pub tokens: usize,
}

impl std::ops::Deref for Limits {
    type Target = Env;

    fn deref(&self) -> &Env {
        &self.each
    }
}

impl From<Env> for Limits {
    fn from(each: Env) -> Limits {
        Limits { each, tokens: each.batch.saturating_mul(each.seq) }
    }
}

/// A symbolic shape, outermost dimension first.
pub type Shape = Vec<Dim>;

/// `shape` under `env`.
#[doc(hidden)]
pub fn resolve(shape: &[Dim], env: &Env) -> Vec<usize> {
    shape.iter().map(|d| d.resolve(env)).collect()
}

/// A shape as text: `[batch, seq, 64]`.
#[doc(hidden)]
pub fn display_shape<D: fmt::Display>(shape: &[D]) -> String {
    let dims: Vec<String> = shape.iter().map(|d| d.to_string()).collect();
    format!("[{}]", dims.join(", "))
}

/// The product of `shape`, or `None` when it overflows.
#[doc(hidden)]
pub fn checked_numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}
