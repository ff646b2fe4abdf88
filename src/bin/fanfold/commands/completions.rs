//! `fanfold completions`: prints a script that makes a shell complete fanfold's commands and options.
//!
//! The script is generated from the command line itself, and this file knows no option by name. Read `man.rs` for the manual
//! pages, which are generated alike.

use crate::terminal::print::say;
use anyhow::Result;
use clap::Command;
use clap_complete::Shell;

#[derive(clap::Args)]
#[command(after_help = "Examples, one per shell:
  fanfold completions bash > ~/.local/share/bash-completion/completions/fanfold
  fanfold completions zsh > ~/.zfunc/_fanfold
  fanfold completions fish > ~/.config/fish/completions/fanfold.fish
  fanfold completions powershell >> $PROFILE")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for `command`, the whole command line.
pub fn main(args: &Args, mut command: Command) -> Result<()> {
    // Generated in memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "fanfold", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}
