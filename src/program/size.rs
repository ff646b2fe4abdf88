//! How many elements a tensor has when some of its dimensions are known only in a call.
//!
//! It deliberately knows no tensor. Read `memory.rs` for what sizes add up to.

use crate::shape::{Dim, Limits, Symbol};
use serde::Serialize;

/// Elements that depend on the call: a number times symbols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[doc(hidden)]
pub struct Size {
    /// The number.
    pub count: usize,
    /// The symbols, sorted.
    pub symbols: Vec<crate::shape::Symbol>,
}

impl Size {
    /// The elements of `shape`.
    pub fn of(shape: &[Dim]) -> Size {
        let mut symbols: Vec<_> =
            shape.iter().filter_map(|d| if let Dim::Symbol(s) = d { Some(*s) } else { None }).collect();
        symbols.sort_unstable();
        Size { count: shape.iter().filter_map(|d| d.fixed()).fold(1, usize::saturating_mul), symbols }
    }

    /// The most elements in calls up to `limits`.
    pub fn max(&self, limits: &Limits) -> usize {
        let product = |symbols: &mut dyn Iterator<Item = &Symbol>| {
            symbols.fold(1usize, |n, &s| n.saturating_mul(Dim::Symbol(s).resolve(limits)))
        };
        let per_token = |s: &&Symbol| matches!(s, Symbol::Batch | Symbol::Seq | Symbol::Keep);
        let mut tokens = product(&mut self.symbols.iter().filter(per_token));
        let count = |wanted: fn(&Symbol) -> bool| self.symbols.iter().filter(|s| wanted(s)).count();
        let (batch, positions) = (count(|s| *s == Symbol::Batch), count(|s| matches!(s, Symbol::Seq | Symbol::Keep)));
        if batch > 0 {
            // Each `batch` is paired with a `seq`, or a `keep`, which is at most `seq`: together they are the tokens.
            let pairs = batch.min(positions).max(1);
            let power = |n: usize, times: usize| (0..times).fold(1usize, |product, _| product.saturating_mul(n));
            let rest =
                power(limits.batch, batch - pairs).saturating_mul(power(limits.seq, positions.saturating_sub(pairs)));
            tokens = tokens.min(power(limits.tokens.max(limits.batch), pairs).saturating_mul(rest));
        }
        let others = product(&mut self.symbols.iter().filter(|s| !per_token(s)));
        self.count.saturating_mul(tokens).saturating_mul(others)
    }
}
