//! Files and streams that a person names on the command line: texts to read, results to write.
//!
//! Nothing here knows a command or a model. Read `input.rs` and `output.rs`.

pub mod input;
pub mod output;
