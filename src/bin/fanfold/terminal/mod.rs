//! The terminal: what is printed and how wide, progress bars, tables, Ctrl-C, and the lines that a person types.
//!
//! Nothing here knows a command, a model or a device. Read `print.rs` first, which every command uses.

pub mod interrupt;
pub mod lines;
pub mod print;
pub mod progress;
pub mod table;
