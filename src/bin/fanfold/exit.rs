//! How the program fails: the message on stderr and the exit code of an error, whichever layer it is of.
//!
//! Commands return their errors and print none. Nothing here knows a command. Read `usage.rs` for the person's mistakes,
//! [`fanfold::Error`] for the library's errors and `advice.rs` for the ways out.

use crate::advice::advice;
use crate::errors::library_error;
use crate::terminal::interrupt::{self, Interrupted};
use crate::terminal::print::tell;
use crate::usage::Usage;
use fanfold::Error;
use fanfold::comm::CommError;
use fanfold::device::DeviceError;
use fanfold::generate::GenerateError;
use fanfold::hub::HubError;
use fanfold::message::shown;
use fanfold::program::ProgramError;
use fanfold::session::SessionError;
use fanfold::sharding::ShardingError;
use fanfold::tensor::TensorError;
use fanfold::text::TextError;

/// Prints `error` on stderr, unless there is nothing to say, and returns the program's exit code.
pub fn fail(error: &anyhow::Error) -> u8 {
    if closed_pipe(error) {
        return 0;
    }
    if !error.is::<Interrupted>() {
        tell(format_args!("error: {}", message(error)));
    }
    exit_code(error)
}

/// What a person is told of `error`: the error with its causes, and a line of advice where there is any. Made safe for a
/// terminal: names from files reach it in the errors of any layer.
pub fn message(error: &anyhow::Error) -> String {
    let told = shown(&format!("{error:#}"));
    match library_error(error).and_then(|error| advice(&error)) {
        // Shortened on its own, so that a long error does not push the advice out.
        Some(advice) => format!("{told}\nadvice: {}", shown(&advice)),
        None => told,
    }
}

/// Whether the reader of stdout has closed it, as `head` does. That is not a failure.
fn closed_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// The exit code that the README gives an error: 2 usage, 3 bad model, 4 does not fit, 5 a device was lost, refused a call or
/// did not answer in time, 130 ended by Ctrl-C, 1 anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return 2;
    }
    if error.is::<Interrupted>() {
        return interrupt::CODE;
    }
    library_error(error).map_or(1, |error| code(&error))
}

/// The exit code of a library's error.
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
    use crate::usage::usage;
    use fanfold::graph::GraphError;
    use fanfold::import::ImportError;
    use fanfold::plan::PlanError;
    use std::path::PathBuf;
    use std::time::Duration;

    /// The code is the one that the README gives, and stays the same where a command adds context to the error.
    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        let (path, word, deadline) = (PathBuf::from("model"), "x".to_string(), Duration::from_secs(1));
        let folder = ImportError::Folder { path: path.clone(), reason: word.clone() };
        let lost = DeviceError::Lost { device: word.clone(), reason: word.clone() };
        let memory =
            DeviceError::OutOfMemory { device: word.clone(), what: word.clone(), bytes: 1, reason: word.clone() };
        let tokens = GenerateError::Context { tokens: 2, capacity: 1, limit: Some(1) };
        let name = GraphError::Name { kind: "node", name: word.clone(), problem: "does not exist" };
        let table: Vec<(anyhow::Error, u8)> = vec![
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
            let union = anyhow::Error::from(library_error(&error).unwrap());
            assert_eq!((exit_code(&error), exit_code(&union)), (code, code), "{error}");
            assert_eq!(exit_code(&error.context("text 3").context("more")), code);
        }
        assert_eq!(exit_code(&usage("x").context("more")), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
        let io = |kind: std::io::ErrorKind| anyhow::Error::from(std::io::Error::from(kind)).context("file");
        assert_eq!(exit_code(&io(std::io::ErrorKind::StorageFull)), 1);
        assert!(closed_pipe(&io(std::io::ErrorKind::BrokenPipe)));
    }

    #[test]
    fn no_error_of_any_layer_can_control_the_terminal() {
        let hostile = || "\u{1b}]0;title\u{7}\u{202e}".to_string();
        let errors: [anyhow::Error; 4] = [
            PlanError::Format(hostile()).into(),
            SessionError::Panicked { words: hostile() }.into(),
            ImportError::NotUnderstood { path: hostile().into(), fields: vec![hostile()], names: hostile() }.into(),
            usage(hostile()).context(hostile()),
        ];
        for error in errors {
            let told = message(&error);
            assert!(told.contains("title") && told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
            assert!(!told.contains('\u{202e}'), "{told:?}");
        }
    }
}
