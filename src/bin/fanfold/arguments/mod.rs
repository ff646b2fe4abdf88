//! Arguments that several subcommands take, and how the values of options are read.
//!
//! Nothing here opens a file or a device: parsing refuses what makes no sense in any program, and the rest is refused by
//! whoever uses the value. Read `target.rs` for the arguments, `numbers.rs` for a parser and `hyphens.rs` for how texts that
//! begin with a hyphen are told from options.

pub mod devices;
pub mod hyphens;
pub mod numbers;
pub mod sampling;
pub mod size;
pub mod target;
pub mod texts;
pub mod words;
