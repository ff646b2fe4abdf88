//! The command line: a file per subcommand, and what they share in `common.rs`.
//!
//! It parses, opens, prints and chooses exit codes; everything it does is the library's. It is the only home of clap
//! and anyhow. Read `common.rs` next.

// A closed or full stdout or stderr makes `println!` and `eprintln!` panic: `common::say` and `common::tell` print.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod asking;
mod bench;
mod chat;
mod classify;
mod common;
mod completions;
mod demo;
mod devices;
mod doctor;
mod embed;
#[cfg(test)]
mod flags;
mod huggingface;
mod input;
mod interrupt;
mod man;
mod memory;
mod output;
mod perplexity;
mod plan;
mod pull;
mod rank;
mod run;
mod system;
mod texts;
mod values;
mod verify;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use fanfold::Error;
use fanfold::comm::CommError;
use fanfold::device::DeviceError;
use fanfold::generate::GenerateError;
use fanfold::graph::GraphError;
use fanfold::hub::HubError;
use fanfold::import::ImportError;
use fanfold::message::shown;
use fanfold::ops::OpError;
use fanfold::plan::PlanError;
use fanfold::program::ProgramError;
use fanfold::session::SessionError;
use fanfold::sharding::ShardingError;
use fanfold::tensor::TensorError;
use fanfold::text::TextError;
use fanfold::weights::SourceError;
use std::ffi::OsString;
use std::process::ExitCode;

/// Run one model across whatever GPUs you have, and prove that the answer is one device's.
#[derive(Parser)]
#[command(version, arg_required_else_help = false)]
#[command(after_help = "Example:
  fanfold run MODEL -p \"Once upon a time\" --devices 0,1 --ratios 3,2

Exit codes: 0 done, 1 failed, 2 usage, 3 bad model, 4 does not fit, 5 device lost, 130 ended by Ctrl-C")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
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

const WELCOME: &str = "fanfold runs one model across whatever GPUs you have: it splits the wide layers over
them, exchanges what they compute, and proves that the answer is one device's.

Try:
  fanfold devices                          what there is to run on
  fanfold demo                             the embedded model over three unequal devices
  fanfold run MODEL -p \"Once upon a time\"  a model folder as Hugging Face lays it out

`fanfold --help` lists every command.";

/// The whole command line.
fn command() -> clap::Command {
    arguments::with_hyphens(Cli::command())
}

fn main() -> ExitCode {
    // Mesa's device-select layer reorders adapters and complains on stderr where there is no desktop session.
    // SAFETY: no other thread runs yet, so nothing reads the environment at the same time.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    interrupt::listen();
    ExitCode::from(run_with(std::env::args_os()))
}

/// Does what `args` say, the program's name first, and returns the exit code.
fn run_with(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match arguments::parse(args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            // Help that cannot be written is a failure, but for a reader who has seen enough.
            let lost = printed.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe);
            return if lost && !error.use_stderr() { 1 } else { error.exit_code() as u8 };
        }
    };
    let result = match cli.command {
        None => common::say(WELCOME),
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
        Some(Command::Perplexity(args)) => perplexity::main(&args),
        Some(Command::Demo(args)) => demo::main(&args),
        Some(Command::Pull(args)) => pull::main(&args),
        Some(Command::Completions(args)) => completions::main(&args),
        Some(Command::Man(args)) => man::main(&args),
    };
    match result {
        Ok(()) => 0,
        Err(error) if closed_pipe(&error) => 0,
        Err(error) => {
            let code = exit_code(&error);
            if !error.is::<interrupt::Interrupted>() {
                // The one place where errors are printed.
                common::tell(format_args!("error: {}", shown(&format!("{error:#}"))));
            }
            code
        }
    }
}

/// A reader that has seen enough, such as `head`, is no error.
fn closed_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// 2 usage, 3 bad model, 4 does not fit, 5 a device was lost, refused a call or did not answer in time, 130 ended by
/// Ctrl-C, 1 anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<common::Usage>() {
        return 2;
    }
    if error.is::<interrupt::Interrupted>() {
        return interrupt::CODE;
    }
    union(error).map_or(1, |error| code(&error))
}

/// The library's error that `error` carries, whichever layer's it is.
fn union(error: &anyhow::Error) -> Option<Error> {
    macro_rules! of {
        ($($layer:ty),* $(,)?) => {
            None$(.or_else(|| error.downcast_ref::<$layer>().map(|error| Error::from(error.clone()))))*
        };
    }
    of![
        Error,
        TensorError,
        ShardingError,
        OpError,
        GraphError,
        SourceError,
        ImportError,
        HubError,
        PlanError,
        ProgramError,
        DeviceError,
        CommError,
        SessionError,
        TextError,
        GenerateError,
    ]
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Tensor(TensorError::Memory { .. }) => 4,
        Error::Import(_) => 3,
        Error::Hub(HubError::Name { .. }) => 2,
        Error::Hub(HubError::Stopped) => interrupt::CODE,
        Error::Hub(HubError::NotCached { .. } | HubError::NoWeights { .. } | HubError::NotFound { .. }) => 3,
        Error::Sharding(ShardingError::Ratios(_)) => 2,
        Error::Graph(_) | Error::Op(_) | Error::Sharding(_) | Error::Tensor(_) | Error::Source(_) => 3,
        Error::Text(TextError::Sampling { .. } | TextError::Prompt { .. }) => 2,
        Error::Text(TextError::Logits(_)) => 1,
        Error::Text(_) => 3,
        Error::Program(ProgramError::DoesNotFit { .. } | ProgramError::TooWide { .. }) => 4,
        Error::Plan(_) | Error::Program(_) => 2,
        Error::Device(DeviceError::List { .. } | DeviceError::NotFound { .. } | DeviceError::NoAdapter) => 2,
        Error::Device(DeviceError::OutOfMemory { .. }) => 4,
        Error::Device(_) => 5,
        Error::Session(SessionError::Rank { cause, .. }) => code(&(**cause).clone().into()),
        Error::Session(SessionError::WorldSize { .. } | SessionError::Context { .. }) => 2,
        Error::Generate(GenerateError::Context { .. } | GenerateError::EmptyPrompt | GenerateError::Model { .. }) => 2,
        Error::Generate(GenerateError::Token { .. }) => 3,
        Error::Comm(CommError::PeerEnded { .. } | CommError::Deadline { .. }) => 5,
        Error::Session(SessionError::Stalled { .. }) => 5,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    /// Of every kind of error, the code that the README gives it. One that a command adds words to keeps its code.
    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        let (path, word, deadline) = (PathBuf::from("model"), "x".to_string(), Duration::from_secs(1));
        let folder = ImportError::Folder { path: path.clone(), reason: word.clone() };
        let lost = DeviceError::Lost { device: word.clone(), reason: word.clone() };
        let memory =
            DeviceError::OutOfMemory { device: word.clone(), what: word.clone(), bytes: 1, reason: word.clone() };
        let tokens = GenerateError::Context { tokens: 2, capacity: 1, limit: Some(1) };
        let name = GraphError::Name { kind: "node", name: word.clone(), problem: "does not exist" };
        let table: Vec<(Error, u8)> = vec![
            (folder.into(), 3),
            (name.into(), 3),
            (HubError::Name { name: word.clone(), reason: "x" }.into(), 2),
            (HubError::NotCached { id: word.clone(), cache: path.clone() }.into(), 3),
            (HubError::NotFound { endpoint: word.clone(), what: word.clone() }.into(), 3),
            (HubError::Network { url: word.clone(), reason: word.clone() }.into(), 1),
            (HubError::Disk { path: path.clone(), reason: word.clone() }.into(), 1),
            (SessionError::WorldSize { plan: 1, devices: 2 }.into(), 2),
            (PlanError::Inexact(word.clone()).into(), 2),
            (ProgramError::DoesNotFit { shortfalls: Vec::new() }.into(), 4),
            (DeviceError::NoAdapter.into(), 2),
            (DeviceError::List { list: word.clone(), reason: word.clone() }.into(), 2),
            (DeviceError::NotFound { wanted: word.clone(), present: Vec::new() }.into(), 2),
            (memory.into(), 4),
            (lost.into(), 5),
            (DeviceError::Deadline { device: word.clone(), deadline }.into(), 5),
            (DeviceError::Refused { device: word.clone(), reason: word.clone() }.into(), 5),
            (CommError::PeerEnded { rank: 0, peer: 1 }.into(), 5),
            (tokens.into(), 2),
            (GenerateError::EmptyPrompt.into(), 2),
            (GenerateError::Model { model: word.clone(), reason: word.clone() }.into(), 2),
            (GenerateError::Token { token: 9, vocabulary: 1 }.into(), 3),
            (SessionError::Ended.into(), 1),
            (TextError::NoTemplate { path: path.clone() }.into(), 3),
            (TextError::Tokenizer { path: path.clone(), reason: word.clone() }.into(), 3),
            (TextError::Sampling { setting: "temp", value: 0.0, range: "x" }.into(), 2),
            (TextError::Logits("x").into(), 1),
        ];
        for (error, code) in table {
            let plain = anyhow::Error::from(error.clone());
            assert_eq!(exit_code(&plain), code, "{error}");
            assert_eq!(exit_code(&plain.context("text 3").context("more")), code, "{error}");
        }
        assert_eq!(exit_code(&common::usage("x").context("more")), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
        let io = |kind: std::io::ErrorKind| anyhow::Error::from(std::io::Error::from(kind)).context("file");
        assert_eq!(exit_code(&io(std::io::ErrorKind::StorageFull)), 1);
        assert!(closed_pipe(&io(std::io::ErrorKind::BrokenPipe)));
    }
}
