//! Proofs: that a sharded model gives what one device gives, and that a device gives what the host gives.
//!
//! `verify.rs` compares two engines on one prompt; `selftest.rs` tests one device on small cases in a few seconds. Neither
//! opens a device itself: the caller does. Read `verify.rs` first.

mod selftest;
mod verify;

pub use selftest::{Check, Open, checks, selftest};
pub use verify::{Comparison, Measure, TOLERANCE, argmax, verify, verify_embedding, verify_layers};
