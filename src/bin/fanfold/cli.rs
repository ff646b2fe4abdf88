//! The command line as clap knows it: the subcommands, and what they say of themselves.
//!
//! It runs nothing. Read `main.rs` for what does, and a file in `commands/` for a subcommand's arguments.

use crate::arguments::hyphens::with_hyphens;
use crate::commands::{
    bench, chat, classify, completions, demo, devices, doctor, embed, man, perplexity, plan, pull, rank, run, tune,
    verify,
};
use clap::{CommandFactory, Parser, Subcommand};

/// Run one model across whatever GPUs you have, and prove that the answer is one device's.
#[derive(Parser)]
#[command(version, arg_required_else_help = false)]
#[command(after_help = "Example:
  fanfold run MODEL -p \"Once upon a time\" --devices 0,1 --ratios 3,2

Exit codes: 0 done, 1 failed, 2 usage, 3 bad model, 4 does not fit, 5 device lost, 130 ended by Ctrl-C")]
pub struct Cli {
    /// None where the program is called without arguments.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A subcommand and its arguments.
#[derive(Subcommand)]
pub enum Command {
    /// List the devices that models can run on
    Devices(devices::Args),
    /// Report what is installed, and test every adapter
    Doctor(doctor::Args),
    /// Continue a text
    Run(run::Args),
    /// Talk to a model, turn by turn
    Chat(chat::Args),
    /// Turn texts into vectors
    Embed(embed::Args),
    /// Sort documents by how well they answer a query
    Rank(rank::Args),
    /// Say which labels a classifier gives to texts
    Classify(classify::Args),
    /// Show who would hold what, and write it as JSON
    Plan(plan::Args),
    /// Prove that the sharded answer is the single-device answer
    Verify(verify::Args),
    /// Measure tokens per second, as llama-bench does
    Bench(bench::Args),
    /// Measure which kernels are the fastest on each adapter, once, for all later runs
    Tune(tune::Args),
    /// Measure how well the model predicts a text
    Perplexity(perplexity::Args),
    /// Run the embedded model over three unequal devices
    Demo(demo::Args),
    /// Fetch a model by its name into the cache
    Pull(pull::Args),
    /// Print what makes a shell complete fanfold's commands and options
    Completions(completions::Args),
    /// Print the manual page, or write the pages of all commands
    Man(man::Args),
}

/// The whole command line, for parsing, completions, manual pages and tests.
pub fn command() -> clap::Command {
    with_hyphens(Cli::command())
}
