//! `fanfold man`: prints the manual page, or writes the pages of all commands into a folder.
//!
//! The pages are generated from the command line itself, and this file knows no command by name. Read `completions.rs` for
//! shells' completions, which are generated alike.

use crate::terminal::print::say;
use crate::usage::usage;
use anyhow::Result;
use clap::Command;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples, to read the page and to install them all:
  fanfold man | man -l -
  fanfold man ~/.local/share/man/man1")]
pub struct Args {
    /// Write fanfold.1 and a page per command into this folder
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Prints or writes the pages of `command`, the whole command line.
pub fn main(args: &Args, command: Command) -> Result<()> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return say(String::from_utf8_lossy(&page).trim_end());
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|e| usage(format!("{}: {e}", folder.display())))
}
