//! From arguments to a running engine, in the steps that the commands share: model, decision, load.
//!
//! Everything done here is the library's; this room opens it as the arguments say, and shows progress. Read `models.rs`,
//! `decision.rs` and `load.rs`, in this order.

pub mod decision;
pub mod load;
pub mod models;
pub mod proof;
pub mod summary;
pub mod texts;
