//! The subcommands, one file each: its arguments, and what it does with them.
//!
//! A command parses, opens, prints and chooses how it fails; what it computes is the library's, and what several commands share
//! is in `engine/`. Commands do not use each other. Read `run.rs` first.

pub mod bench;
pub mod chat;
pub mod classify;
pub mod completions;
pub mod demo;
pub mod devices;
pub mod doctor;
pub mod embed;
pub mod man;
pub mod perplexity;
pub mod plan;
pub mod pull;
pub mod rank;
pub mod run;
pub mod tune;
pub mod verify;
