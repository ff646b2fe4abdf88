//! `fanfold man`: the manual pages, made from the command line itself.
//!
//! It knows no command by name. Read `completions.rs` for its sibling.

use crate::common::{say, usage};
use anyhow::Result;
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

pub fn main(args: &Args) -> Result<()> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(crate::command()).render(&mut page)?;
        return say(String::from_utf8_lossy(&page).trim_end());
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(crate::command(), folder))
        .map_err(|e| usage(format!("{}: {e}", folder.display())))
}
