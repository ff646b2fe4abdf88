//! Why a template ended without a text.
//!
//! Whether Jinja2 would fail here too is kept apart from what only fanfold refuses, so that the comparison with Jinja2
//! in the tests can tell them apart. Read `mod.rs` one folder up for how a fault becomes fanfold's error.

/// The reason.
#[derive(Debug)]
pub(in super::super) enum Fault {
    /// The source is no template.
    Syntax(String),
    /// The template called `raise_exception`.
    Raised(String),
    /// Jinja2 fails here too.
    Failed(String),
    /// Jinja2 has a meaning for this that fanfold does not offer.
    Refused(String),
    /// Too many steps.
    Steps,
    /// Too much time.
    Time,
    /// Too much memory.
    Memory,
    /// Too long a text.
    Printed,
    /// Too many evaluations inside each other.
    Depth,
}

/// A [`Fault`] and the innermost line of the template that it arose on.
#[derive(Debug)]
pub(in super::super) struct Error {
    pub(in super::super) fault: Fault,
    pub(in super::super) line: Option<u32>,
}

pub(super) type Result<T> = std::result::Result<T, Box<Error>>;

pub(super) fn fault(fault: Fault) -> Box<Error> {
    Box::new(Error { fault, line: None })
}

/// Jinja2 fails here too.
pub(super) fn failed(reason: impl Into<String>) -> Box<Error> {
    fault(Fault::Failed(reason.into()))
}

/// Only fanfold refuses this.
pub(super) fn refused(what: impl Into<String>) -> Box<Error> {
    fault(Fault::Refused(what.into()))
}

pub(super) fn syntax(line: u32, reason: impl Into<String>) -> Box<Error> {
    Box::new(Error { fault: Fault::Syntax(reason.into()), line: Some(line) })
}

/// Adds the line to an error that has none yet.
pub(super) fn at(line: u32) -> impl FnOnce(Box<Error>) -> Box<Error> {
    move |mut error| {
        error.line.get_or_insert(line);
        error
    }
}
