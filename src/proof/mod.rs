//! Proofs that a sharded model computes what a single device computes, and that a device computes what the host
//! computes.
//!
//! `verify.rs` compares two engines on one prompt; `selftest.rs` tests one device on small cases in a few seconds;
//! `op.rs` tests an op, this crate's or your own, cut in every way that its rule allows. None of them opens a device:
//! the caller does. Read `verify.rs` first.

mod op;
mod selftest;
mod verify;

pub use op::{OpProofError, check_columns, check_cuts_on, check_device, check_op, check_rule, random_cut};
pub use selftest::{Check, Open, checks, selftest};
pub use verify::{Comparison, Measure, TOLERANCE, argmax, verify, verify_embedding, verify_layers};
