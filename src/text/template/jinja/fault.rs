//! The reasons why a template gives no text.
//!
//! Errors that Jinja2 raises too are distinguished from what only fanfold refuses, so that tests which compare with
//! Jinja2 can tell them apart. Read `mod.rs` one folder up for how a fault becomes fanfold's error.

/// The reason.
#[derive(Debug)]
pub(in super::super) enum Fault {
    /// The source is not a valid template.
    Syntax(String),
    /// The template called `raise_exception`.
    Raised(String),
    /// Jinja2 raises an error here, too.
    Failed(String),
    /// Jinja2 gives this a meaning that fanfold does not support.
    Refused(String),
    /// The limit on steps is exceeded.
    Steps,
    /// The limit on time is exceeded.
    Time,
    /// The limit on memory is exceeded.
    Memory,
    /// The limit on the length of the text is exceeded.
    Printed,
    /// The limit on nested evaluations is exceeded.
    Depth,
}

/// A [`Fault`] and the innermost line of the template at which it occurred.
#[derive(Debug)]
pub(in super::super) struct Error {
    pub(in super::super) fault: Fault,
    pub(in super::super) line: Option<u32>,
}

pub(super) type Result<T> = std::result::Result<T, Box<Error>>;

pub(super) fn fault(fault: Fault) -> Box<Error> {
    Box::new(Error { fault, line: None })
}

/// A fault that Jinja2 raises, too.
pub(super) fn failed(reason: impl Into<String>) -> Box<Error> {
    fault(Fault::Failed(reason.into()))
}

/// A fault of something that only fanfold refuses.
pub(super) fn refused(what: impl Into<String>) -> Box<Error> {
    fault(Fault::Refused(what.into()))
}

pub(super) fn syntax(line: u32, reason: impl Into<String>) -> Box<Error> {
    Box::new(Error { fault: Fault::Syntax(reason.into()), line: Some(line) })
}

/// Adds the line to an error that has no line yet.
pub(super) fn at(line: u32) -> impl FnOnce(Box<Error>) -> Box<Error> {
    move |mut error| {
        error.line.get_or_insert(line);
        error
    }
}
