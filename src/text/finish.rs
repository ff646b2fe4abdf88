//! The reasons why a text ends.
//!
//! It only names the reasons, and deliberately knows no engine and prints nothing. [`crate::generate`] finds all of
//! them except the stop text, which [`Output`](super::Output) finds. Read [`FinishReason`].

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model chose one of its end tokens, which is not part of the text.
    EndToken(u32),
    /// The text reached one of the stop texts of the request. The stop text is not part of it.
    StopText(String),
    /// The text has as many tokens as were requested. This is also the reason if none were requested.
    Length,
    /// The context is full.
    Context,
    /// The generation was stopped, by [`Cancel`](crate::generate::Cancel) or by a caller that wants no more tokens.
    Cancelled,
}

impl FinishReason {
    /// The reason in the words of the field `finish_reason` in OpenAI's and vLLM's answers: `stop`, `length` or
    /// `abort`.
    #[doc(hidden)]
    pub fn finish_reason(&self) -> &'static str {
        match self {
            FinishReason::EndToken(_) | FinishReason::StopText(_) => "stop",
            FinishReason::Length | FinishReason::Context => "length",
            FinishReason::Cancelled => "abort",
        }
    }

    /// The name of the reason. Unlike [`finish_reason`](FinishReason::finish_reason) it differs for each variant.
    #[doc(hidden)]
    pub fn name(&self) -> &'static str {
        match self {
            FinishReason::EndToken(_) => "end token",
            FinishReason::StopText(_) => "stop text",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Cancelled => "interrupted",
        }
    }
}
