//! Printing on stdout and stderr without panics, and the width of the terminal.
//!
//! Data goes to stdout and everything else to stderr. `println!` and `eprintln!` panic on a stream that is closed or full, so
//! this program uses neither; `main.rs` forbids them. Read `exit.rs` for what becomes of an error in writing.

use anyhow::Result;
use std::fmt::Display;
use std::io::Write as _;
use terminal_size::{Width, terminal_size_of};

/// The width that output has where it goes to a file or a pipe, in columns.
const FILE_WIDTH: usize = 80;

/// The narrowest width that is drawn for: below it the terminal breaks the lines.
const NARROWEST: usize = 60;

/// Prints `text` and a line end on stdout, for data. Errors when it cannot be written.
pub fn say(text: impl Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints `text` and a line end on stderr, for everything that is not data. Text that cannot be written is lost, and the
/// command goes on.
pub fn tell(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Columns of stdout: the terminal's, or 80 where stdout is not a terminal, so that files do not depend on a window's size.
pub fn width() -> usize {
    terminal_size_of(std::io::stdout()).map_or(FILE_WIDTH, |(Width(columns), _)| usize::from(columns).max(NARROWEST))
}
