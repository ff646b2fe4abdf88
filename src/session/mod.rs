//! Runs a program: tensors in, tensors out.
//!
//! A [`Rank`] takes one device and one communicator through the rank's instructions, in any thread or process; a
//! [`Session`] runs all ranks of one process, each in a thread. Nothing here knows tokens, models or plans. Read
//! `rank.rs` first, then `threads.rs`.

mod check;
mod error;
mod exchange;
mod options;
mod position;
mod rank;
mod shards;
mod threads;
mod worker;

pub use error::SessionError;
pub use options::Options;
pub use rank::{NotFinite, Rank, RankReport};
pub use shards::{OutputShard, Tensors, stack};
pub use threads::Session;
