//! Symbolic shapes: a dimension is a number that the model fixes, or a [`Symbol`] whose value an [`Env`] gives for a
//! call.
//!
//! This module deliberately knows nothing of elements, devices or how a shape is divided over ranks. Read
//! [`crate::tensor`] next for tensors, whose shapes are resolved to numbers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a size that is known only when a session opens or a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbol {
    /// The number of sequences in the call.
    Batch,
    /// The number of new tokens per sequence in the call.
    Seq,
    /// The number of new tokens per sequence, counted from the last, for which logits are computed.
    Keep,
    /// The number of positions per sequence that the state (the KV cache) can hold. Fixed when a session opens.
    Capacity,
}

/// The length of one dimension: a number, or a symbol that an [`Env`] resolves to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// A length that the model fixes.
    Fixed(usize),
    /// A length that is known only when a session opens or a call is made.
    Symbol(Symbol),
}

impl Dim {
    /// The length as a number, with the value of a symbol taken from `env`.
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

    /// The length if the model fixes it, or `None` for a symbol.
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

/// The values of the symbols in one call, and the number of positions that are in the state before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Env {
    /// The number of sequences.
    pub batch: usize,
    /// The number of new tokens per sequence.
    pub seq: usize,
    /// The number of new tokens per sequence, counted from the last, for which logits are computed: `1..=seq`.
    pub keep: usize,
    /// The number of positions per sequence that are already in the state. New tokens are written after them.
    pub past: usize,
    /// The number of positions per sequence that the state can hold.
    pub capacity: usize,
}

impl Env {
    /// A call with one sequence of `seq` tokens and an empty state, which has room for exactly these tokens. Logits are
    /// computed for every token.
    pub fn prompt(seq: usize) -> Env {
        Env { batch: 1, seq, keep: seq, past: 0, capacity: seq }
    }
}

/// The limits of the calls of a session: the largest value of each symbol, and the largest number of new tokens of all
/// sequences together.
///
/// Memory for activations depends on `tokens`. With `tokens` below `batch * seq` a session takes many short sequences
/// or a few long ones, without memory for many long ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The largest value of each symbol.
    pub each: Env,
    /// The largest product `batch * seq` of a call.
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

/// The lengths of the dimensions of `shape` as numbers, with the values of symbols taken from `env`.
#[doc(hidden)]
pub fn resolve(shape: &[Dim], env: &Env) -> Vec<usize> {
    shape.iter().map(|d| d.resolve(env)).collect()
}

/// A shape as text for messages, such as `[batch, seq, 64]`.
#[doc(hidden)]
pub fn display_shape<D: fmt::Display>(shape: &[D]) -> String {
    let dims: Vec<String> = shape.iter().map(|d| d.to_string()).collect();
    format!("[{}]", dims.join(", "))
}

/// The number of elements of a tensor of `shape`, or `None` when the product overflows.
#[doc(hidden)]
pub fn checked_numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}
