//! Why a text ended.
//!
//! It only names the reasons, and deliberately knows no engine and prints nothing. [`crate::generate`] finds all of them
//! but the stop text, which [`Output`](super::Output) finds. Read [`FinishReason`].

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model chose one of its end tokens, which is not part of the text.
    EndToken(u32),
    /// One of the stop texts that were asked for, which is not part of the text.
    StopText(String),
    /// It has as many tokens as were asked for. This is also the reason of an answer for which no tokens were asked.
    Length,
    /// The context is full.
    Context,
    /// It was asked to stop, by [`Cancel`](crate::generate::Cancel) or by a caller that wants no more.
    Cancelled,
}

impl FinishReason {
    /// The reason as the field `finish_reason` of OpenAI's and vLLM's answers has it: `stop`, `length` or `abort`.
    #[doc(hidden)]
    pub fn finish_reason(&self) -> &'static str {
        match self {
            FinishReason::EndToken(_) | FinishReason::StopText(_) => "stop",
            FinishReason::Length | FinishReason::Context => "length",
            FinishReason::Cancelled => "abort",
        }
    }

    /// The name of the reason, which unlike [`finish_reason`](FinishReason::finish_reason) differs for each.
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
