//! Spans for the crate `tracing`, behind the feature of that name. Without the feature the macros compile to nothing.
//!
//! Spans deliberately hold no tensor and no text, only ranks, nodes, kinds and sizes in bytes. Read
//! [`crate::session::Rank`] for who opens them: `load`, `call` and `exchange`.

/// Opens a span that lasts as long as the value returned: `span!("exchange", rank = 1, node = "l0")`. A field that is known
/// only later is given as `bytes = crate::trace::Empty` and set by [`record`].
#[cfg(feature = "tracing")]
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        tracing::debug_span!($name $(, $($fields)*)?).entered()
    };
}

/// Without the feature `tracing` this macro does nothing.
#[cfg(not(feature = "tracing"))]
macro_rules! span {
    ($($anything:tt)*) => {
        ()
    };
}

/// Sets a field of a span that was opened without it: `record!(span, "bytes", 4096)`.
#[cfg(feature = "tracing")]
macro_rules! record {
    ($span:expr, $field:literal, $value:expr) => {
        $span.record($field, $value);
    };
}

/// Without the feature `tracing` this macro does nothing.
#[cfg(not(feature = "tracing"))]
macro_rules! record {
    ($span:expr, $field:literal, $value:expr) => {
        _ = ($span, $value);
    };
}

#[cfg(feature = "tracing")]
pub(crate) use tracing::field::Empty;
pub(crate) use {record, span};
