//! Spans for the crate `tracing`, behind the feature of that name; without it they are nothing at all.
//!
//! It deliberately records no tensor and no text. Read [`crate::session::Rank`] for the spans there are: `load`, `call` and
//! `exchange`.

/// A span that lasts as long as the value returned: `span!("exchange", rank = 1, node = "l0")`.
#[cfg(feature = "tracing")]
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        tracing::debug_span!($name $(, $($fields)*)?).entered()
    };
}

/// Nothing: the feature `tracing` is off.
#[cfg(not(feature = "tracing"))]
macro_rules! span {
    ($($anything:tt)*) => {
        ()
    };
}

pub(crate) use span;
