//! `fanfold completions`: what makes a shell complete fanfold's commands and options.
//!
//! It is made from the command line itself and so never lags behind it. Read `man.rs` for its sibling.

use crate::common::say;
use anyhow::Result;
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

pub fn main(args: &Args) -> Result<()> {
    // By way of memory: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "fanfold", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}
