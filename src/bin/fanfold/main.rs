//! The program `fanfold`: parses the command line, runs one subcommand and turns its result into an exit code.
//!
//! It computes nothing: that is the library's. Only this program uses clap and anyhow. Read `cli.rs` for the command line,
//! `commands/` for the subcommands and `exit.rs` for the exit codes.

// `println!` and `eprintln!` panic on a stdout or stderr that is closed or full. `terminal/print.rs` has functions that do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod advice;
mod arguments;
mod cli;
mod commands;
mod engine;
mod errors;
mod exit;
mod files;
#[cfg(test)]
mod flags;
mod machine;
mod terminal;
mod usage;

use clap::FromArgMatches;
use cli::{Cli, Command};
use commands::{
    bench, chat, classify, completions, demo, devices, doctor, embed, man, perplexity, plan, pull, rank, run, tune,
    verify,
};
use std::ffi::OsString;
use std::process::ExitCode;

/// What the program says when it is called without arguments.
const WELCOME: &str = "fanfold runs one model across whatever GPUs you have: it splits the wide layers over
them, exchanges what they compute, and proves that the answer is one device's.

Try:
  fanfold devices                          what there is to run on
  fanfold demo                             the embedded model over three unequal devices
  fanfold run MODEL -p \"Once upon a time\"  a model folder as Hugging Face lays it out

`fanfold --help` lists every command.";

fn main() -> ExitCode {
    // Mesa's device-select layer reorders adapters, and complains on stderr where there is no desktop session.
    // SAFETY: no other thread runs yet, so nothing reads the environment at the same time.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    terminal::interrupt::listen();
    ExitCode::from(run_with(std::env::args_os()))
}

/// Does what `args` say, which begin with the program's name, and returns the exit code.
fn run_with(args: impl IntoIterator<Item = OsString>) -> u8 {
    let matches = arguments::hyphens::parse(cli::command(), args);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            // Help that cannot be written is a failure, unless its reader has closed the pipe.
            let lost = printed.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe);
            return if lost && !error.use_stderr() { 1 } else { error.exit_code() as u8 };
        }
    };
    let result = match cli.command {
        None => terminal::print::say(WELCOME),
        Some(Command::Devices(args)) => devices::main(&args),
        Some(Command::Doctor(args)) => doctor::main(&args),
        Some(Command::Run(args)) => run::main(&args),
        Some(Command::Chat(args)) => chat::main(&args),
        Some(Command::Embed(args)) => embed::main(&args),
        Some(Command::Rank(args)) => rank::main(&args),
        Some(Command::Classify(args)) => classify::main(&args),
        Some(Command::Plan(args)) => plan::main(&args),
        Some(Command::Verify(args)) => verify::main(&args),
        Some(Command::Bench(args)) => bench::main(&args),
        Some(Command::Tune(args)) => tune::main(&args),
        Some(Command::Perplexity(args)) => perplexity::main(&args),
        Some(Command::Demo(args)) => demo::main(&args),
        Some(Command::Pull(args)) => pull::main(&args),
        Some(Command::Completions(args)) => completions::main(&args, cli::command()),
        Some(Command::Man(args)) => man::main(&args, cli::command()),
    };
    result.map_or_else(|error| exit::fail(&error), |()| 0)
}
