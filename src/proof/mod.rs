//! Proofs: that a sharded model gives what one device gives, and that a device gives what the host gives.
//!
//! `verify.rs` compares two engines on one prompt; `selftest.rs` tests one device on small cases in a few seconds; `op.rs`
//! holds an op, the crate's or one's own, against the rule theorem. Neither
//! opens a device itself: the caller does. Read `verify.rs` first.

mod op;
mod selftest;
mod verify;

pub use op::{OpProofError, check_columns, check_cuts_on, check_device, check_op, check_rule, random_cut};
pub use selftest::{Check, Open, checks, selftest};
pub use verify::{Comparison, Measure, TOLERANCE, argmax, verify, verify_embedding, verify_layers};
