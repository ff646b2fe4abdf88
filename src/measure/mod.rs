//! Measures an engine: how fast it is, and how well its model predicts a text.
//!
//! `bench.rs` measures time, `perplexity.rs` the loss on a text; `repeated.rs` has weights for whoever times ops by themselves. None
//! prints, and none knows devices. Read [`crate::generate`] for what an engine does.

mod bench;
mod perplexity;
mod repeated;

pub use bench::{Phase, Test, Timing, mean_and_deviation, measure, peak_memory};
pub use perplexity::{Perplexity, Window, perplexity, windows};
#[doc(hidden)]
pub use repeated::Repeated;
